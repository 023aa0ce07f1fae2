/* The decoder: see codec.h. In this file, NULL without an exception means that the message is left to `msgpack`. */
#include "codec.h"

#include "wire.h"

struct decoder {
    struct wire_reader from;
    struct codec_keys *keys;
};

static PyObject *decode_value(struct decoder *decoder, unsigned levels);

/* Strings */

static bool is_ascii(const unsigned char *text, size_t bytes)
{
    uint64_t all = 0, eight;

    for (; bytes >= sizeof eight; bytes -= sizeof eight, text += sizeof eight) {
        memcpy(&eight, text, sizeof eight);
        all |= eight;
    }
    for (; bytes > 0; bytes--)
        all |= *text++;
    return (all & UINT64_C(0x8080808080808080)) == 0;
}

/* CPython's UTF-8 decoder reads its input twice, so it must work on a copy. If the text is ASCII, as mostly, the copy
 * already is the str. */
static PyObject *decode_str(const unsigned char *text, size_t bytes)
{
    PyObject *copy, *decoded;

    if (text == NULL)
        return NULL;
    copy = PyUnicode_New((Py_ssize_t)bytes, 0x7f);
    if (copy == NULL || bytes == 0)
        return copy;
    memcpy(PyUnicode_1BYTE_DATA(copy), text, bytes);
    wire_copied(PyUnicode_1BYTE_DATA(copy));
    if (bytes > 1 && is_ascii(PyUnicode_1BYTE_DATA(copy), bytes))
        return copy;
    /* For one character, CPython returns an existing str. */
    decoded = PyUnicode_DecodeUTF8((const char *)PyUnicode_1BYTE_DATA(copy), (Py_ssize_t)bytes, NULL);
    Py_DECREF(copy);
    return decoded;
}

static PyObject *decode_bin(const unsigned char *data, size_t bytes)
{
    return data == NULL ? NULL : PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)bytes);
}

/* Keys */

#ifdef Py_GIL_DISABLED

/* No cache: threads would have to share it. And this Python never frees interned strings, so a hostile producer could
 * fill the memory with them. */
static PyObject *decode_str_key(struct decoder *decoder, size_t bytes)
{
    return decode_str(wire_take(&decoder->from, bytes), bytes);
}

#else

/* As with msgpack, equal keys are one object. */
static PyObject *intern(PyObject *key)
{
    if (key != NULL)
        PyUnicode_InternInPlace(&key);
    return key;
}

/* Returns the first of the two entries where a key can be, by a multiplicative hash of its numbers. */
static struct codec_key *entries_of(struct codec_keys *keys, uint64_t first, uint64_t last)
{
    _Static_assert(CODEC_KEYS == 2 << 6, "the upper 6 bits of the hash select a pair of entries");
    return &keys->each[(first ^ (last << 1)) * UINT64_C(0x9e3779b97f4a7c15) >> 58 << 1];
}

static bool is_key(const struct codec_key *known, uint64_t first, uint64_t last, size_t bytes)
{
    return known->first == first && known->last == last && known->key != NULL &&
           (size_t)PyUnicode_GET_LENGTH(known->key) == bytes;
}

/* Stores a key in the first of its entries, and drops the older of the two keys there. */
static void remember(struct codec_key *entries, struct codec_key new)
{
    PyObject *older = entries[1].key;

    Py_INCREF(new.key);
    entries[1] = entries[0];
    entries[0] = new;
    Py_XDECREF(older);
}

/* Makes the key from its numbers. It is not read from the message again: another process may have changed it, and the
 * cache would return the changed key for these numbers. */
static PyObject *new_key(struct codec_key *entries, uint64_t first, uint64_t last, size_t bytes)
{
    unsigned char copy[CODEC_KEY_BYTES];
    PyObject *key;

    memcpy(copy, &first, sizeof first);
    if (bytes >= sizeof last)
        memcpy(copy + bytes - sizeof last, &last, sizeof last);
    key = intern(decode_str(copy, bytes));
    if (key != NULL && PyUnicode_IS_COMPACT_ASCII(key))
        remember(entries, (struct codec_key){first, last, key});
    return key;
}

static uint64_t load_eight(const unsigned char *text)
{
    uint64_t number;

    memcpy(&number, text, sizeof number);
    return wire_once(number);
}

/* Loads fewer than eight bytes as a number whose other bytes are zeros. At least `left` bytes may be read. */
static uint64_t load_fewer(const unsigned char *text, size_t bytes, size_t left)
{
    uint64_t number = 0;

    if (left >= sizeof number) /* one load; the bytes behind the key are masked out */
        return htole64(le64toh(load_eight(text)) & ((UINT64_C(1) << 8 * bytes) - 1));
    memcpy(&number, text, bytes);
    return wire_once(number);
}

static PyObject *decode_str_key(struct decoder *decoder, size_t bytes)
{
    size_t left = wire_left(&decoder->from);
    const unsigned char *text = wire_take(&decoder->from, bytes);
    uint64_t first, last = 0;
    struct codec_key *entries;

    if (text == NULL || bytes > CODEC_KEY_BYTES)
        return intern(decode_str(text, bytes));
    if (bytes < sizeof first) {
        first = load_fewer(text, bytes, left);
    } else {
        first = load_eight(text);
        last = load_eight(text + bytes - sizeof last);
    }
    entries = entries_of(decoder->keys, first, last);
    if (is_key(entries, first, last, bytes))
        return Py_NewRef(entries[0].key);
    if (is_key(entries + 1, first, last, bytes))
        return Py_NewRef(entries[1].key);
    return new_key(entries, first, last, bytes);
}

#endif

void codec_forget(struct codec_keys *keys)
{
    for (size_t index = 0; index < CODEC_KEYS; index++)
        Py_CLEAR(keys->each[index].key);
}

/* Values */

static PyObject *decode_unsigned(uint64_t number)
{
    /* CPython is faster at the narrower type. */
    return number <= LONG_MAX ? PyLong_FromLong((long)number) : PyLong_FromUnsignedLongLong(number);
}

static PyObject *decode_float(uint64_t bits)
{
    uint32_t single = htobe32((uint32_t)bits);

    return PyFloat_FromDouble(PyFloat_Unpack4((const char *)&single, 0));
}

static PyObject *decode_double(uint64_t bits)
{
    double number;

    memcpy(&number, &bits, sizeof number);
    return PyFloat_FromDouble(number);
}

static PyObject *decode_scalar(struct decoder *decoder, struct wire_head head)
{
    struct wire_reader *from = &decoder->from;

    switch (head.kind) {
    case WIRE_NIL:
        Py_RETURN_NONE;
    case WIRE_FALSE:
        Py_RETURN_FALSE;
    case WIRE_TRUE:
        Py_RETURN_TRUE;
    case WIRE_UNSIGNED:
        return decode_unsigned(head.number);
    case WIRE_SIGNED:
        return PyLong_FromLongLong((int64_t)head.number);
    case WIRE_FLOAT:
        return decode_float(head.number);
    case WIRE_DOUBLE:
        return decode_double(head.number);
    case WIRE_STR:
        return decode_str(wire_take(from, head.number), head.number);
    case WIRE_BIN:
        return decode_bin(wire_take(from, head.number), head.number);
    default:
        return NULL;
    }
}

static PyObject *decode_array(struct decoder *decoder, uint64_t count, unsigned levels)
{
    PyObject *list;

    if (levels == 0 || !wire_promise(&decoder->from, count))
        return NULL;
    list = PyList_New((Py_ssize_t)count);
    if (list == NULL)
        return NULL;
    /* While the list has empty slots, Python code that the garbage collector runs must not find it (gc.get_objects). */
    PyObject_GC_UnTrack(list);
    for (Py_ssize_t index = 0; index < (Py_ssize_t)count; index++) {
        PyObject *element;

        wire_redeem(&decoder->from);
        element = decode_value(decoder, levels - 1);
        if (element == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, index, element);
    }
    PyObject_GC_Track(list);
    return list;
}

/* A key that is an array or a map is left to `msgpack`. */
static PyObject *decode_key(struct decoder *decoder)
{
    struct wire_head head;

    wire_redeem(&decoder->from);
    head = wire_read(&decoder->from);
    return head.kind == WIRE_STR ? decode_str_key(decoder, head.number) : decode_scalar(decoder, head);
}

static bool decode_pair(struct decoder *decoder, PyObject *dict, unsigned levels)
{
    PyObject *key = decode_key(decoder);
    PyObject *value = NULL;
    bool stored = false;

    if (key != NULL) {
        wire_redeem(&decoder->from);
        value = decode_value(decoder, levels);
    }
    if (value != NULL)
        stored = PyDict_SetItem(dict, key, value) == 0;
    Py_XDECREF(key);
    Py_XDECREF(value);
    return stored;
}

static PyObject *decode_map(struct decoder *decoder, uint64_t pairs, unsigned levels)
{
    PyObject *dict;

    if (levels == 0 || !wire_promise(&decoder->from, 2 * pairs))
        return NULL;
    dict = PyDict_New();
    if (dict == NULL)
        return NULL;
    for (; pairs > 0; pairs--)
        if (!decode_pair(decoder, dict, levels - 1)) {
            Py_DECREF(dict);
            return NULL;
        }
    return dict;
}

static PyObject *decode_value(struct decoder *decoder, unsigned levels)
{
    struct wire_head head = wire_read(&decoder->from);

    if (head.kind == WIRE_ARRAY)
        return decode_array(decoder, head.number, levels);
    if (head.kind == WIRE_MAP)
        return decode_map(decoder, head.number, levels);
    return decode_scalar(decoder, head);
}

PyObject *codec_decode(const unsigned char *data, size_t bytes, struct codec_keys *keys)
{
    struct decoder decoder = {{data, data + bytes}, keys};
    PyObject *item = decode_value(&decoder, CODEC_LEVELS);

    if (item != NULL && wire_left(&decoder.from) > 0)
        Py_CLEAR(item);
    /* For anything but MemoryError, msgpack raises the same again. */
    if (item == NULL && PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_MemoryError))
        PyErr_Clear();
    return item;
}
