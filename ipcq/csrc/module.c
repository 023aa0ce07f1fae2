/* The extension's module. All its state is in the module object, so each interpreter has its own. */
#include "native.h"

static struct PyModuleDef module;

struct native_state *native_state_of(PyTypeObject *type)
{
    PyObject *owner = PyType_GetModuleByDef(type, &module);

    return owner == NULL ? NULL : PyModule_GetState(owner);
}

static PyMethodDef module_functions[] = {
    {"in_c", verb_in_c, METH_O,
     PyDoc_STR("in_c($module, method, /)\n--\n\n"
               "Decorate a method of `Queue` or `Lease`: run its calls in C if possible, and otherwise call the method.")},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *self, PyType_Spec *spec, PyObject **place)
{
    *place = PyType_FromModuleAndSpec(self, spec, NULL);
    return *place == NULL ? -1 : PyModule_AddType(self, (PyTypeObject *)*place);
}

static int module_exec(PyObject *self)
{
    struct native_state *state = PyModule_GetState(self);
    const struct {
        PyObject **place;
        const char *name;
    } names[] = {
        {&state->dropped, "_dropped"},
        {&state->get, "get"},
        {&state->get_rest, "_get_rest"},
        {&state->keep, "_keep"},
        {&state->lent_rest, "_lent_rest"},
        {&state->put, "put"},
        {&state->put_encoded, "_put_encoded"},
        {&state->put_rest, "_put_rest"},
        {&state->raise, "_raise"},
        {&state->raise_lost, "_raise_lost"},
        {&state->recall, "_recall_batch"},
    };

    for (size_t index = 0; index < sizeof names / sizeof *names; index++) {
        *names[index].place = PyUnicode_InternFromString(names[index].name);
        if (*names[index].place == NULL)
            return -1;
    }
    if (add_type(self, &base_spec, &state->base) < 0 || add_type(self, &codec_object_spec, &state->codec) < 0 ||
        add_type(self, &lease_spec, &state->lease_base) < 0 || add_type(self, &serials_spec, &state->serials) < 0 ||
        add_type(self, &verb_spec, &state->verb) < 0)
        return -1;
    return 0;
}

static int module_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct native_state *state = PyModule_GetState(self);

    for (PyObject **each = (PyObject **)state; each != (PyObject **)(state + 1); each++)
        Py_VISIT(*each);
    return 0;
}

static int module_clear(PyObject *self)
{
    struct native_state *state = PyModule_GetState(self);

    for (PyObject **each = (PyObject **)state; each != (PyObject **)(state + 1); each++)
        Py_CLEAR(*each);
    return 0;
}

static void module_free(void *self)
{
    module_clear(self);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ipcq._native",
    .m_doc = PyDoc_STR("Put, get, leases and MessagePack in C. Without this optional extension, ipcq does the same in Python."),
    .m_size = sizeof(struct native_state),
    .m_methods = module_functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module);
}
