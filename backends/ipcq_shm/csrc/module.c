/* The extension's module: its classes, its exceptions, and the functions that need no handle. */
#include "binding.h"

#include "lock.h"
#include "segment.h"

static struct PyModuleDef module;

const struct core_state *core_state_of(PyTypeObject *type)
{
    PyObject *owner = PyType_GetModuleByDef(type, &module);

    return owner == NULL ? NULL : PyModule_GetState(owner);
}

static void *raise_slotless(const struct core_state *state)
{
    PyObject *nothing = PyTuple_New(0);
    PyObject *facts = Py_BuildValue("{s:s,s:i,s:i,s:s,s:i}", "limit", "handles of one queue", "value", LAYOUT_SLOTS, "asked",
                                    LAYOUT_SLOTS + 1, "remedy", "close unused handles", "errno", EMFILE);
    PyObject *error = nothing && facts ? PyObject_Call(state->limit_exceeded, nothing, facts) : NULL;

    if (error != NULL)
        PyErr_SetObject(state->limit_exceeded, error);
    Py_XDECREF(nothing);
    Py_XDECREF(facts);
    Py_XDECREF(error);
    return NULL;
}

/* A full descriptor table makes a put fail too, so it needs an error of ipcq. */
static void *raise_system(const struct core_state *state)
{
    int reason = errno;
    PyObject *error;

    if (reason != EMFILE && reason != ENFILE)
        return PyErr_SetFromErrno(PyExc_OSError);
    error = PyObject_CallFunction(state->too_many_descriptors, "i", reason);
    if (error != NULL)
        PyErr_SetObject(state->limit_exceeded, error);
    Py_XDECREF(error);
    return NULL;
}

void *core_raise(PyTypeObject *type, enum queue_result result)
{
    const struct core_state *state = core_state_of(type);

    if (state == NULL)
        return NULL;
    switch (result) {
    case QUEUE_BUSY:
        PyErr_SetString(state->timed_out, "another process holds the lock of the queue, so it is probably stopped: find it "
                                          "with ipcq doctor, and continue or end it");
        break;
    case QUEUE_DOWN:
        PyErr_SetNone(state->shut_down);
        break;
    case QUEUE_GONE:
        PyErr_SetNone(state->gone);
        break;
    case QUEUE_ALIEN:
        PyErr_SetString(state->corrupt, "a file of this name is not a queue: remove it, or choose another name");
        break;
    case QUEUE_OLD:
        PyErr_SetString(state->version_mismatch, "it was created by an older version of ipcq: move its messages to a new "
                                                 "queue with ipcq drain and ipcq load, and unlink it");
        break;
    case QUEUE_VERSIONED:
        PyErr_SetString(state->version_mismatch, "it was created by a newer version of ipcq, or with another word size: "
                                                 "use the same version and word size, also for ipcq drain, or unlink it");
        break;
    case QUEUE_FOREIGN:
        PyErr_SetString(state->version_mismatch,
                        "it was created in another PID namespace, whose locks do not work here, or has leases and was "
                        "created in another time namespace: share the namespace (docker run --pid), or use another "
                        "backend");
        break;
    case QUEUE_SLOTLESS:
        return raise_slotless(state);
    case QUEUE_NO_MEMORY:
        return PyErr_NoMemory();
    case QUEUE_SYSTEM:
        return raise_system(state);
    default:
        PyErr_SetNone(state->corrupt);
    }
    return NULL;
}

/* The module */

static PyObject *module_works(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(lock_works());
}

static PyObject *module_message_size(PyObject *Py_UNUSED(self), PyObject *arguments)
{
    unsigned long long size;
    unsigned int flags;

    if (!PyArg_ParseTuple(arguments, "KI", &size, &flags))
        return NULL;
    return PyLong_FromUnsignedLongLong(layout_message_size(size, flags));
}

static PyObject *module_segment_size(PyObject *Py_UNUSED(self), PyObject *arguments)
{
    unsigned long long limit;
    unsigned int flags;

    if (!PyArg_ParseTuple(arguments, "KI", &limit, &flags))
        return NULL;
    return PyLong_FromUnsignedLongLong(segment_size(&(struct segment_header){.limit = limit, .flags = flags}));
}

static PyObject *module_format(PyObject *Py_UNUSED(self), PyObject *arguments)
{
    struct segment_header asked = {0};
    unsigned long long limit, messages, largest;
    unsigned int flags, deliveries;
    int descriptor;

    if (!PyArg_ParseTuple(arguments, "iKKKII", &descriptor, &limit, &messages, &largest, &flags, &deliveries))
        return NULL;
    asked.limit = limit;
    asked.max_messages = messages;
    asked.max_message_size = largest;
    asked.flags = flags;
    asked.max_deliveries = deliveries;
    if (segment_format(descriptor, &asked) != QUEUE_OK)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef module_functions[] = {
    {"works", module_works, METH_NOARGS, PyDoc_STR("Return whether this kernel releases the locks of dead threads.")},
    {"message_size", module_message_size, METH_VARARGS, PyDoc_STR("Return the bytes of a limit that a message takes.")},
    {"segment_size", module_segment_size, METH_VARARGS, PyDoc_STR("Return the size of a queue's file.")},
    {"format", module_format, METH_VARARGS, PyDoc_STR("Write a new queue into a file of zeros of that size.")},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *self)
{
    struct core_state *state = PyModule_GetState(self);
    const struct {
        PyObject **place;
        const char *module;
        const char *name;
    } imports[] = {
        {&state->closed, "ipcq.errors", "QueueClosed"},
        {&state->corrupt, "ipcq.errors", "CorruptQueue"},
        {&state->gone, "ipcq.errors", "QueueGone"},
        {&state->limit_exceeded, "ipcq.errors", "LimitExceeded"},
        {&state->shut_down, "ipcq.errors", "QueueShutDown"},
        {&state->timed_out, "ipcq.errors", "TimedOutError"},
        {&state->too_many_descriptors, "ipcq.backend", "too_many_descriptors"},
        {&state->version_mismatch, "ipcq.errors", "VersionMismatch"},
    };

    for (size_t index = 0; index < sizeof imports / sizeof *imports; index++) {
        PyObject *from = PyImport_ImportModule(imports[index].module);

        *imports[index].place = from == NULL ? NULL : PyObject_GetAttrString(from, imports[index].name);
        Py_XDECREF(from);
        if (*imports[index].place == NULL)
            return -1;
    }
    state->queue = PyType_FromModuleAndSpec(self, &core_channel_spec, NULL);
    return state->queue != NULL ? PyModule_AddObjectRef(self, "Ring", state->queue) : -1;
}

static int module_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct core_state *state = PyModule_GetState(self);

    for (PyObject **each = (PyObject **)state; each != (PyObject **)(state + 1); each++)
        Py_VISIT(*each);
    return 0;
}

static int module_clear(PyObject *self)
{
    struct core_state *state = PyModule_GetState(self);

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
    .m_name = "ipcq_shm._core",
    .m_doc = PyDoc_STR("The shared-memory ring, in C."),
    .m_size = sizeof(struct core_state),
    .m_methods = module_functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&module);
}
