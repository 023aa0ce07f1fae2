/* `Codec`: the encode and decode functions of a serializer in C, with fallbacks in Python. */
#include "native.h"

struct codec_object *codec_object_of(const struct native_state *state, PyObject *encode, PyObject *decode)
{
    PyObject *self = PyCFunction_Check(encode) ? PyCFunction_GET_SELF(encode) : NULL;

    if (self == NULL || Py_TYPE(self) != (PyTypeObject *)state->codec || !PyCFunction_Check(decode) ||
        PyCFunction_GET_SELF(decode) != self)
        return NULL;
    return (struct codec_object *)self;
}

size_t codec_long_bin_head(const unsigned char *front, size_t present, size_t size)
{
    size_t head = front[0] == 0xc5 ? 3 : 5;
    uint64_t number = 0;

    if (present < head)
        return 0;
    for (size_t index = 1; index < head; index++)
        number = number << 8 | front[index];
    return number == size - head ? head : 0;
}

static bool format_of(const char *name, enum codec_format *format)
{
    static const struct {
        const char *name;
        enum codec_format format;
    } formats[] = {{"messagepack", FORMAT_MESSAGEPACK}, {"bin", FORMAT_BIN}, {"raw", FORMAT_RAW}};

    for (size_t index = 0; index < sizeof formats / sizeof *formats; index++)
        if (strcmp(name, formats[index].name) == 0) {
            *format = formats[index].format;
            return true;
        }
    PyErr_Format(PyExc_ValueError, "no format %s", name);
    return false;
}

static PyObject *codec_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    static char *wanted[] = {"", "", "format", NULL};
    PyObject *encode, *decode;
    const char *format = "messagepack";
    struct codec_object *self;

    if (!PyArg_ParseTupleAndKeywords(arguments, names, "OO|s", wanted, &encode, &decode, &format))
        return NULL;
    self = (struct codec_object *)type->tp_alloc(type, 0); /* zeros */
    if (self == NULL)
        return NULL;
    self->encode = Py_NewRef(encode);
    self->decode = Py_NewRef(decode);
    if (!format_of(format, &self->format)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* Returns the item as bytes; NULL without an exception if Python has to encode it. */
static PyObject *encode_in_c(const struct codec_object *self, PyObject *item)
{
    struct bytes_sink to;

    if (self->format == FORMAT_RAW)
        return PyBytes_CheckExact(item) ? Py_NewRef(item) : NULL;
    if (self->format == FORMAT_BIN && !PyBytes_CheckExact(item))
        return NULL;
    sink_begin(&to);
    if (codec_encode(item, &to.sink) == CODEC_DONE)
        return sink_finish(&to);
    sink_drop(&to);
    return NULL;
}

static PyObject *codec_encode_item(PyObject *object, PyObject *item)
{
    struct codec_object *self = (struct codec_object *)object;
    PyObject *data = encode_in_c(self, item);

    return data != NULL ? data : PyObject_CallOneArg(self->encode, item);
}

/* Returns the item; or NULL with MemoryError; or NULL without an exception if Python has to decode the message. */
static PyObject *decode_in_c(struct codec_object *self, PyObject *data)
{
    const unsigned char *bytes;
    size_t size, head;

    if (!PyBytes_CheckExact(data))
        return NULL;
    bytes = (const unsigned char *)PyBytes_AS_STRING(data);
    size = (size_t)PyBytes_GET_SIZE(data);
    switch (self->format) {
    case FORMAT_RAW:
        return Py_NewRef(data);
    case FORMAT_BIN:
        head = codec_bin_head(bytes, size, size);
        return head == 0 ? NULL : PyBytes_FromStringAndSize((const char *)bytes + head, (Py_ssize_t)(size - head));
    default:
        return codec_decode(bytes, size, &self->keys);
    }
}

static PyObject *codec_decode_data(PyObject *object, PyObject *data)
{
    struct codec_object *self = (struct codec_object *)object;
    PyObject *item = decode_in_c(self, data);

    return item != NULL || PyErr_Occurred() ? item : PyObject_CallOneArg(self->decode, data);
}

static int codec_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct codec_object *self = (struct codec_object *)object;

    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->encode);
    Py_VISIT(self->decode);
    return 0; /* keys are str, which refer to nothing */
}

static void codec_dealloc(PyObject *object)
{
    struct codec_object *self = (struct codec_object *)object;
    PyTypeObject *type = Py_TYPE(object);

    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->encode);
    Py_XDECREF(self->decode);
    codec_forget(&self->keys);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef codec_methods[] = {
    {"encode", codec_encode_item, METH_O, PyDoc_STR("Encode an item to bytes.")},
    {"decode", codec_decode_data, METH_O, PyDoc_STR("Decode bytes to an item.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot codec_slots[] = {
    {Py_tp_doc, PyDoc_STR("A message format in C, with fallbacks in Python for what C cannot encode or decode.")},
    {Py_tp_new, codec_new},
    {Py_tp_traverse, codec_traverse},
    {Py_tp_dealloc, codec_dealloc},
    {Py_tp_methods, codec_methods},
    {0, NULL},
};

PyType_Spec codec_object_spec = {
    .name = "ipcq._native.Codec",
    .basicsize = sizeof(struct codec_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = codec_slots,
};
