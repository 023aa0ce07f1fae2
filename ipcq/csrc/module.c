/* The extension's module: its class of codecs. It has no state, so it may be in any number of interpreters. */
#include "codec.h"

#include <stddef.h>

/* What most messages take is on the stack, in bytes. */
#define STACK_BYTES 1024

/* A sink that becomes bytes. */
struct bytes_sink {
    struct codec_sink sink;
    PyObject *bytes;      /* NULL as long as the stack suffices */
    unsigned char *begin; /* of what is written */
    unsigned char stack[STACK_BYTES];
};

static bool grow_bytes(struct codec_sink *sink, size_t more)
{
    struct bytes_sink *self = (struct bytes_sink *)sink;
    size_t used = (size_t)(sink->next - self->begin);
    size_t size = 2 * (size_t)(sink->end - self->begin);

    if (more > (size_t)PY_SSIZE_T_MAX / 2 - used)
        return false;
    /* Twice as much, so that growing takes a bounded part of the time; or, behind large bytes, exactly what they need. */
    if (size < used + more)
        size = used + more;
    if (self->bytes != NULL) {
        _PyBytes_Resize(&self->bytes, (Py_ssize_t)size);
    } else {
        self->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (self->bytes != NULL)
            memcpy(PyBytes_AS_STRING(self->bytes), self->stack, used);
    }
    if (self->bytes == NULL) {
        PyErr_Clear();
        return false;
    }
    self->begin = (unsigned char *)PyBytes_AS_STRING(self->bytes);
    sink->next = self->begin + used;
    sink->end = self->begin + size;
    return true;
}

/* Returns what was written; NULL without an exception where memory is wanting. */
static PyObject *finish_bytes(struct bytes_sink *self)
{
    Py_ssize_t used = self->sink.next - self->begin;

    if (self->bytes == NULL)
        self->bytes = PyBytes_FromStringAndSize((const char *)self->stack, used);
    else if (PyBytes_GET_SIZE(self->bytes) != used)
        _PyBytes_Resize(&self->bytes, used);
    if (self->bytes == NULL)
        PyErr_Clear();
    return self->bytes;
}

/* MessagePack */

struct messagepack {
    PyObject_HEAD
    PyObject *encode;
    PyObject *decode;
    struct codec_keys keys;
};

static PyObject *messagepack_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    static char *wanted[] = {"", "", NULL};
    PyObject *encode, *decode;
    struct messagepack *self;

    if (!PyArg_ParseTupleAndKeywords(arguments, names, "OO", wanted, &encode, &decode))
        return NULL;
    self = (struct messagepack *)type->tp_alloc(type, 0); /* zeros */
    if (self == NULL)
        return NULL;
    self->encode = Py_NewRef(encode);
    self->decode = Py_NewRef(decode);
    return (PyObject *)self;
}

static PyObject *messagepack_encode(PyObject *self, PyObject *item)
{
    struct bytes_sink to; /* without an initialiser, which would fill the stack with zeros */
    PyObject *data = NULL;

    to.sink = (struct codec_sink){.next = to.stack, .end = to.stack + sizeof to.stack, .grow = grow_bytes};
    to.begin = to.stack;
    to.bytes = NULL;
    if (codec_encode(item, &to.sink) == CODEC_DONE)
        data = finish_bytes(&to);
    else
        Py_XDECREF(to.bytes);
    return data != NULL ? data : PyObject_CallOneArg(((struct messagepack *)self)->encode, item);
}

static PyObject *messagepack_decode(PyObject *object, PyObject *data)
{
    struct messagepack *self = (struct messagepack *)object;
    PyObject *item;

    if (PyBytes_CheckExact(data)) {
        const unsigned char *bytes = (const unsigned char *)PyBytes_AS_STRING(data);

        item = codec_decode(bytes, (size_t)PyBytes_GET_SIZE(data), &self->keys);
        if (item != NULL || PyErr_Occurred())
            return item;
    }
    return PyObject_CallOneArg(self->decode, data);
}

static int messagepack_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct messagepack *self = (struct messagepack *)object;

    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->encode);
    Py_VISIT(self->decode);
    return 0; /* a key refers to nothing */
}

static void messagepack_dealloc(PyObject *object)
{
    struct messagepack *self = (struct messagepack *)object;
    PyTypeObject *type = Py_TYPE(object);

    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->encode);
    Py_XDECREF(self->decode);
    codec_forget(&self->keys);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef messagepack_methods[] = {
    {"encode", messagepack_encode, METH_O, PyDoc_STR("Encode an item to bytes.")},
    {"decode", messagepack_decode, METH_O, PyDoc_STR("Decode bytes to an item.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot messagepack_slots[] = {
    {Py_tp_doc, PyDoc_STR("MessagePack in C, and two functions for the messages that it leaves to them.")},
    {Py_tp_new, messagepack_new},
    {Py_tp_traverse, messagepack_traverse},
    {Py_tp_dealloc, messagepack_dealloc},
    {Py_tp_methods, messagepack_methods},
    {0, NULL},
};

static PyType_Spec messagepack_spec = {
    .name = "ipcq._native.MessagePack",
    .basicsize = sizeof(struct messagepack),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = messagepack_slots,
};

/* The module */

static int module_exec(PyObject *self)
{
    PyObject *type = PyType_FromModuleAndSpec(self, &messagepack_spec, NULL);
    int result = type == NULL ? -1 : PyModule_AddObjectRef(self, "MessagePack", type);

    Py_XDECREF(type);
    return result;
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
    .m_doc = PyDoc_STR("What ipcq's core does in C where it was compiled."),
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module);
}
