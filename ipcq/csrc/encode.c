/* The encoder: see codec.h. */
#include "pycompat.h"

#include "codec.h"
#include "wire.h"

#ifdef Py_GIL_DISABLED
/* Waiting for the lock of an inner container may release the outer container's lock, and another thread may then remove
 * the element. So elements are kept alive by a reference. */
#define HOLD(object) Py_INCREF(object)
#define LET_GO(object) Py_DECREF(object)
#else
#define HOLD(object) ((void)(object))
#define LET_GO(object) ((void)(object))
#endif

static enum codec_result encode_value(PyObject *item, struct codec_sink *sink, unsigned levels);
static enum codec_result encode_other(PyObject *item, struct codec_sink *sink, unsigned levels);

static inline bool has_room(struct codec_sink *sink, size_t bytes)
{
    return (size_t)(sink->end - sink->next) >= bytes || (sink->grow != NULL && sink->grow(sink, bytes));
}

/* Copies up to 16 bytes in two moves that may overlap; a call of memcpy takes longer. */
static inline void copy_short(unsigned char *to, const unsigned char *from, size_t count)
{
    uint64_t first_8, last_8;
    uint32_t first_4, last_4;

    if (count >= sizeof first_8) {
        memcpy(&first_8, from, sizeof first_8);
        memcpy(&last_8, from + count - sizeof last_8, sizeof last_8);
        memcpy(to, &first_8, sizeof first_8);
        memcpy(to + count - sizeof last_8, &last_8, sizeof last_8);
    } else if (count >= sizeof first_4) {
        memcpy(&first_4, from, sizeof first_4);
        memcpy(&last_4, from + count - sizeof last_4, sizeof last_4);
        memcpy(to, &first_4, sizeof first_4);
        memcpy(to + count - sizeof last_4, &last_4, sizeof last_4);
    } else if (count > 0) {
        to[0] = from[0];
        to[count / 2] = from[count / 2];
        to[count - 1] = from[count - 1];
    }
}

static inline void write_body(struct codec_sink *sink, const void *bytes, size_t count)
{
    if (count <= 16)
        copy_short(sink->next, bytes, count);
    else
        memcpy(sink->next, bytes, count);
    sink->next += count;
}

/* Returns whether an int has at most one digit, and its value, without a call. */
static inline bool is_short(PyObject *item, long long *value)
{
#if PY_VERSION_HEX >= 0x030c0000
    if (!PyUnstable_Long_IsCompact((PyLongObject *)item))
        return false;
    *value = PyUnstable_Long_CompactValue((PyLongObject *)item);
#else
    Py_ssize_t digits = Py_SIZE(item); /* negative where the int is */

    if (digits < -1 || digits > 1)
        return false;
    *value = digits * (long long)((PyLongObject *)item)->ob_digit[0];
#endif
    return true;
}

static enum codec_result encode_int(PyObject *item, struct codec_sink *sink)
{
    int overflow = 0;
    long long number;

    if (!is_short(item, &number))
        number = PyLong_AsLongLongAndOverflow(item, &overflow);
    if (overflow == 0) {
        sink->next = wire_write_signed(sink->next, number);
        return CODEC_DONE;
    }
    unsigned long long large = overflow > 0 ? PyLong_AsUnsignedLongLong(item) : 0;

    if (overflow < 0 || (large == ULLONG_MAX && PyErr_Occurred())) {
        PyErr_Clear();
        return CODEC_FOREIGN;
    }
    sink->next = wire_write_unsigned(sink->next, large);
    return CODEC_DONE;
}

static inline enum codec_result write_str(const char *text, Py_ssize_t bytes, struct codec_sink *sink)
{
    if ((size_t)bytes > WIRE_LONGEST)
        return CODEC_FOREIGN;
    if (!has_room(sink, WIRE_HEAD_BYTES + (size_t)bytes))
        return CODEC_NO_ROOM;
    sink->next = wire_write_str(sink->next, (uint32_t)bytes);
    write_body(sink, text, (size_t)bytes);
    return CODEC_DONE;
}

static inline enum codec_result encode_str(PyObject *item, struct codec_sink *sink)
{
    const char *text;
    Py_ssize_t bytes;

    if (PyUnicode_IS_COMPACT_ASCII(item))
        return write_str((const char *)PyUnicode_1BYTE_DATA(item), PyUnicode_GET_LENGTH(item), sink);
    text = PyUnicode_AsUTF8AndSize(item, &bytes);
    if (text != NULL)
        return write_str(text, bytes, sink);
    PyErr_Clear(); /* a lone surrogate, or no memory */
    return CODEC_FOREIGN;
}

static enum codec_result encode_bin(const char *data, Py_ssize_t bytes, struct codec_sink *sink)
{
    if ((size_t)bytes > WIRE_LONGEST)
        return CODEC_FOREIGN;
    if (!has_room(sink, WIRE_HEAD_BYTES + (size_t)bytes))
        return CODEC_NO_ROOM;
    sink->next = wire_write_bin(sink->next, (uint32_t)bytes);
    write_body(sink, data, (size_t)bytes);
    return CODEC_DONE;
}

static enum codec_result encode_bytearray(PyObject *item, struct codec_sink *sink)
{
    enum codec_result result;

    Py_BEGIN_CRITICAL_SECTION(item);
    result = encode_bin(PyByteArray_AS_STRING(item), PyByteArray_GET_SIZE(item), sink);
    Py_END_CRITICAL_SECTION();
    return result;
}

/* Writes the head of a list or tuple. */
static enum codec_result encode_array_head(Py_ssize_t count, struct codec_sink *sink)
{
    if ((size_t)count > WIRE_LONGEST)
        return CODEC_FOREIGN;
    if (!has_room(sink, WIRE_HEAD_BYTES))
        return CODEC_NO_ROOM;
    sink->next = wire_write_array(sink->next, (uint32_t)count);
    return CODEC_DONE;
}

/* Inlined into the loops over elements. The most frequent classes come first. */
static inline __attribute__((always_inline)) enum codec_result encode_inline(PyObject *item, struct codec_sink *sink,
                                                                             unsigned levels)
{
    if (PyUnicode_CheckExact(item))
        return encode_str(item, sink);
    if (!has_room(sink, WIRE_HEAD_BYTES))
        return CODEC_NO_ROOM;
    if (PyLong_CheckExact(item))
        return encode_int(item, sink);
    if (PyFloat_CheckExact(item))
        sink->next = wire_write_double(sink->next, PyFloat_AS_DOUBLE(item));
    else if (item == Py_None)
        sink->next = wire_write_nil(sink->next);
    else if (PyBool_Check(item))
        sink->next = wire_write_bool(sink->next, item == Py_True);
    else if (PyBytes_CheckExact(item))
        return encode_bin(PyBytes_AS_STRING(item), PyBytes_GET_SIZE(item), sink);
    else
        return encode_other(item, sink, levels);
    return CODEC_DONE;
}

static enum codec_result encode_tuple(PyObject *tuple, struct codec_sink *sink, unsigned levels)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    enum codec_result result = encode_array_head(count, sink);

    for (Py_ssize_t index = 0; index < count && result == CODEC_DONE; index++)
        result = encode_value(PyTuple_GET_ITEM(tuple, index), sink, levels);
    return result;
}

static enum codec_result encode_list_elements(PyObject *list, struct codec_sink *sink, unsigned levels)
{
    Py_ssize_t count = PyList_GET_SIZE(list);
    enum codec_result result = encode_array_head(count, sink);

    for (Py_ssize_t index = 0; index < count && result == CODEC_DONE; index++) {
        if (index >= PyList_GET_SIZE(list))
            return CODEC_FOREIGN;
        PyObject *element = PyList_GET_ITEM(list, index);

        HOLD(element);
        result = encode_inline(element, sink, levels);
        LET_GO(element);
    }
    return result;
}

static enum codec_result encode_list(PyObject *list, struct codec_sink *sink, unsigned levels)
{
    enum codec_result result;

    Py_BEGIN_CRITICAL_SECTION(list);
    result = encode_list_elements(list, sink, levels);
    Py_END_CRITICAL_SECTION();
    return result;
}

static inline enum codec_result encode_pair(PyObject *key, PyObject *value, struct codec_sink *sink, unsigned levels)
{
    enum codec_result result;

    HOLD(key);
    HOLD(value);
    result = PyUnicode_CheckExact(key) ? encode_str(key, sink) : encode_value(key, sink, levels);
    if (result == CODEC_DONE)
        result = encode_inline(value, sink, levels);
    LET_GO(key);
    LET_GO(value);
    return result;
}

static enum codec_result encode_pairs(PyObject *dict, struct codec_sink *sink, unsigned levels)
{
    size_t count = (size_t)PyDict_GET_SIZE(dict);
    enum codec_result result = CODEC_DONE;
    Py_ssize_t place = 0;
    PyObject *key, *value;

    if (count > WIRE_LONGEST)
        return CODEC_FOREIGN;
    if (!has_room(sink, WIRE_HEAD_BYTES))
        return CODEC_NO_ROOM;
    sink->next = wire_write_map(sink->next, (uint32_t)count);
    for (; count > 0 && result == CODEC_DONE; count--) {
        if (!PyDict_Next(dict, &place, &key, &value))
            return CODEC_FOREIGN;
        result = encode_pair(key, value, sink, levels);
    }
    return result;
}

static enum codec_result encode_dict(PyObject *dict, struct codec_sink *sink, unsigned levels)
{
    enum codec_result result;

    Py_BEGIN_CRITICAL_SECTION(dict);
    result = encode_pairs(dict, sink, levels);
    Py_END_CRITICAL_SECTION();
    return result;
}

/* Not inlined: otherwise scalars would pay for saving the registers that containers need. */
static __attribute__((noinline)) enum codec_result encode_other(PyObject *item, struct codec_sink *sink, unsigned levels)
{
    if (PyByteArray_CheckExact(item))
        return encode_bytearray(item, sink);
    if (levels == 0)
        return CODEC_FOREIGN;
    if (PyDict_CheckExact(item))
        return encode_dict(item, sink, levels - 1);
    if (PyList_CheckExact(item))
        return encode_list(item, sink, levels - 1);
    if (PyTuple_CheckExact(item))
        return encode_tuple(item, sink, levels - 1);
    return CODEC_FOREIGN;
}

static enum codec_result encode_value(PyObject *item, struct codec_sink *sink, unsigned levels)
{
    return encode_inline(item, sink, levels);
}

enum codec_result codec_encode(PyObject *item, struct codec_sink *sink)
{
    return encode_value(item, sink, CODEC_LEVELS);
}
