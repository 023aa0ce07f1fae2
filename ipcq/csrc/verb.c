/*
 * Verbs: the methods of a queue and of a lease that run in C if possible.
 *
 * A verb wraps a method that is written in Python, and is called like it. All its other attributes (name, docstring,
 * annotations, even `__class__`) come from that method. So they are written once, and `inspect` and `unittest.mock`
 * treat the verb as a function.
 */
#include "native.h"

#include <stddef.h>
#include <structmember.h> /* needs Python.h before it */

static PyObject *verb_vectorcall(PyObject *callable, PyObject *const *arguments, size_t flagged, PyObject *names)
{
    const struct verb *verb = (const struct verb *)callable;
    Py_ssize_t count = PyVectorcall_NARGS(flagged);

    if (count > 0 && PyObject_TypeCheck(arguments[0], (PyTypeObject *)verb->state->base)) {
        struct handle *self = (struct handle *)arguments[0];

        /* Without the handle's lock this is only a hint: the call checks again. */
        if (__atomic_load_n(&self->channel, __ATOMIC_RELAXED) != NULL) {
            PyObject *result = verb->call(verb, self, arguments + 1, count - 1, names);

            if (result != NULL || PyErr_Occurred())
                return result;
        }
    }
    return verb->call_method(verb->method, arguments, flagged, names);
}

/* For a method of leases; the call checks whether its handle is armed. */
static PyObject *verb_settle_vectorcall(PyObject *callable, PyObject *const *arguments, size_t flagged, PyObject *names)
{
    const struct verb *verb = (const struct verb *)callable;
    Py_ssize_t count = PyVectorcall_NARGS(flagged);

    if (count > 0 && PyObject_TypeCheck(arguments[0], (PyTypeObject *)verb->state->lease_base)) {
        PyObject *result = verb->settle(verb, (struct lease *)arguments[0], arguments + 1, count - 1, names);

        if (result != NULL || PyErr_Occurred())
            return result;
    }
    return verb->call_method(verb->method, arguments, flagged, names);
}

struct named_call {
    const char *name;
    verb_call *call;
    verb_settle *settle;
};

/* Returns the call of a name, or NULL with ValueError. */
static const struct named_call *call_of(PyObject *name)
{
    static const struct named_call calls[] = {
        {"put", put_call, NULL},
        {"put_nowait", put_nowait_call, NULL},
        {"put_many", put_many_call, NULL},
        {"get", get_call, NULL},
        {"get_nowait", get_nowait_call, NULL},
        {"get_many", get_many_call, NULL},
        {"lease", lease_call, NULL},
        {"lease_many", lease_many_call, NULL},
        {"ack_many", ack_many_call, NULL},
        {"ack", NULL, ack_call},
        {"release", NULL, release_call},
    };

    for (size_t index = 0; index < sizeof calls / sizeof *calls; index++)
        if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, calls[index].name) == 0)
            return &calls[index];
    PyErr_Format(PyExc_ValueError, "there is no %R in C", name);
    return NULL;
}

PyObject *verb_in_c(PyObject *module, PyObject *method)
{
    const struct native_state *state = PyModule_GetState(module);
    PyObject *name = PyObject_GetAttrString(method, "__name__");
    const struct named_call *named = name == NULL ? NULL : call_of(name);
    struct verb *verb;

    Py_XDECREF(name);
    if (named == NULL)
        return NULL;
    if (PyVectorcall_Function(method) == NULL)
        return PyErr_Format(PyExc_TypeError, "%R is not a function", method);
    verb = PyObject_GC_New(struct verb, (PyTypeObject *)state->verb);
    if (verb == NULL)
        return NULL;
    verb->vectorcall = named->call != NULL ? verb_vectorcall : verb_settle_vectorcall;
    verb->call = named->call;
    verb->settle = named->settle;
    verb->method = Py_NewRef(method);
    verb->call_method = PyVectorcall_Function(method);
    verb->state = state; /* the type keeps the module alive */
    PyObject_GC_Track(verb);
    return (PyObject *)verb;
}

bool verb_is_current(const struct native_state *state, const struct handle *self, PyObject *name, verb_call *call)
{
    PyObject *found = _PyType_LookupRef(Py_TYPE(self), name);
    bool current = found != NULL && Py_IS_TYPE(found, (PyTypeObject *)state->verb) && ((struct verb *)found)->call == call;

    Py_XDECREF(found);
    return current;
}

static PyObject *verb_bind(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    return object == NULL || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

static PyObject *verb_attribute(PyObject *self, PyObject *name)
{
    static const char *const own[] = {"__call__", "__get__", "__reduce_ex__", "__repr__"};
    PyObject *method = ((struct verb *)self)->method;

    if (PyUnicode_Check(name)) {
        if (PyUnicode_CompareWithASCIIString(name, "__wrapped__") == 0)
            return Py_NewRef(method);
        for (size_t index = 0; index < sizeof own / sizeof *own; index++)
            if (PyUnicode_CompareWithASCIIString(name, own[index]) == 0)
                return PyObject_GenericGetAttr(self, name);
    }
    return PyObject_GetAttr(method, name);
}

/* Like a function, a verb is pickled and copied by its name in the module. */
static PyObject *verb_reduce(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    return PyObject_GetAttrString(((struct verb *)self)->method, "__qualname__");
}

static PyObject *verb_text(PyObject *self)
{
    return PyUnicode_FromFormat("<in C: %R>", ((struct verb *)self)->method);
}

static int verb_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct verb *)self)->method);
    return 0;
}

/* There is no tp_clear, so that `method` is never NULL: any cycle goes through the class or the function, which break
 * it. */
static void verb_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_DECREF(((struct verb *)self)->method);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef verb_methods[] = {
    {"__reduce_ex__", verb_reduce, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef verb_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct verb, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot verb_slots[] = {
    {Py_tp_doc, PyDoc_STR("A method of a queue or a lease that runs in C if possible, and otherwise in Python.")},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, verb_bind},
    {Py_tp_getattro, verb_attribute},
    {Py_tp_repr, verb_text},
    {Py_tp_traverse, verb_traverse},
    {Py_tp_dealloc, verb_dealloc},
    {Py_tp_methods, verb_methods},
    {Py_tp_members, verb_members},
    {0, NULL},
};

PyType_Spec verb_spec = {
    .name = "ipcq._native.Verb",
    .basicsize = sizeof(struct verb),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = verb_slots,
};
