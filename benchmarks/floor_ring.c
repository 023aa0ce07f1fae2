/* A bare queue as an extension of CPython: the lower bound for put and get in one thread.
 *
 * A `Ring` is a ring in shared memory for one producer and one consumer, with methods in C (METH_FASTCALL). It has none
 * of the other features of a queue of ipcq: no name, no lock, no waiting, no priorities, no limits and no shutdown, and
 * it does not survive a crash. Its methods either succeed or raise IndexError. A `PlainRing` has METH_O and METH_NOARGS
 * methods.
 *
 * A `DictRing` moves dicts of str, int, float, bool and None as MessagePack, which is written and read in the ring. It
 * creates the keys of each dict, as common decoders do; a decoder with a cache of keys can be faster.
 *
 * Under callgrind, `counted` calls a function and counts its instructions.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <endian.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#endif

/* In bytes: the capacity, a power of two; the largest message including its size field; and the space that
 * `write_value` needs for anything but the text of a str. */
enum { CAPACITY = 1 << 20, LARGEST = 1 << 12, MARGIN = 16 };

struct shared {
    _Alignas(128) _Atomic uint64_t put; /* the position behind the last message */
    _Alignas(128) _Atomic uint64_t got;
    /* A message may extend beyond the capacity, where no other begins. */
    _Alignas(128) unsigned char data[CAPACITY + LARGEST];
};

struct ring {
    PyObject_HEAD
    struct shared *shared;
    uint64_t seen_got; /* the last value that the producer saw */
    uint64_t seen_put;
};

/* The ring */

/* Returns where the next message is written, or NULL with an exception. */
static inline unsigned char *begin_put(struct ring *self, size_t size, uint64_t *position)
{
    *position = atomic_load_explicit(&self->shared->put, memory_order_relaxed);
    if (size > LARGEST - 8) {
        PyErr_SetString(PyExc_IndexError, "too large");
        return NULL;
    }
    if (*position + LARGEST - self->seen_got > CAPACITY) {
        self->seen_got = atomic_load_explicit(&self->shared->got, memory_order_acquire);
        if (*position + LARGEST - self->seen_got > CAPACITY) {
            PyErr_SetString(PyExc_IndexError, "full");
            return NULL;
        }
    }
    return self->shared->data + (*position & (CAPACITY - 1)) + 8;
}

static inline void end_put(struct ring *self, unsigned char *data, size_t size, uint64_t position)
{
    uint64_t head = size;

    memcpy(data - 8, &head, 8);
    atomic_store_explicit(&self->shared->put, position + 8 + ((size + 7) & ~(size_t)7), memory_order_release);
}

static inline const unsigned char *begin_get(struct ring *self, uint64_t *position, uint64_t *size)
{
    const unsigned char *data;

    *position = atomic_load_explicit(&self->shared->got, memory_order_relaxed);
    if (*position == self->seen_put) {
        self->seen_put = atomic_load_explicit(&self->shared->put, memory_order_acquire);
        if (*position == self->seen_put) {
            PyErr_SetString(PyExc_IndexError, "empty");
            return NULL;
        }
    }
    data = self->shared->data + (*position & (CAPACITY - 1));
    memcpy(size, data, 8);
    return data + 8;
}

static inline void end_get(struct ring *self, uint64_t position, uint64_t size)
{
    atomic_store_explicit(&self->shared->got, position + 8 + ((size + 7) & ~(uint64_t)7), memory_order_release);
}

/* Bytes */

static PyObject *put_item(PyObject *object, PyObject *item)
{
    struct ring *self = (struct ring *)object;
    unsigned char *data;
    uint64_t position;

    if (!PyBytes_CheckExact(item))
        return PyErr_Format(PyExc_TypeError, "not bytes: %R", item);
    data = begin_put(self, (size_t)PyBytes_GET_SIZE(item), &position);
    if (data == NULL)
        return NULL;
    memcpy(data, PyBytes_AS_STRING(item), (size_t)PyBytes_GET_SIZE(item));
    end_put(self, data, (size_t)PyBytes_GET_SIZE(item), position);
    Py_RETURN_NONE;
}

static PyObject *put(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    return count == 1 ? put_item(object, arguments[0]) : PyErr_Format(PyExc_TypeError, "put takes one argument");
}

static PyObject *get_item(PyObject *object, PyObject *Py_UNUSED(unused))
{
    struct ring *self = (struct ring *)object;
    uint64_t position, size;
    const unsigned char *data = begin_get(self, &position, &size);
    PyObject *item;

    if (data == NULL)
        return NULL;
    item = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    if (item != NULL)
        end_get(self, position, size);
    return item;
}

static PyObject *get(PyObject *object, PyObject *const *Py_UNUSED(arguments), Py_ssize_t count)
{
    return count == 0 ? get_item(object, NULL) : PyErr_Format(PyExc_TypeError, "get takes no argument");
}

/* Dicts, as MessagePack. Any other item raises TypeError. */

static inline unsigned char *write_64(unsigned char *to, unsigned char lead, uint64_t value)
{
    value = htobe64(value);
    *to = lead;
    memcpy(to + 1, &value, 8);
    return to + 9;
}

static inline unsigned char *write_value(unsigned char *to, const unsigned char *end, PyObject *value)
{
    if (end - to < MARGIN)
        return NULL;
    if (PyUnicode_CheckExact(value)) {
        Py_ssize_t size = PyUnicode_GET_LENGTH(value);

        if (!PyUnicode_IS_COMPACT_ASCII(value) || size > 31 || end - to < MARGIN + size)
            return NULL;
        *to = (unsigned char)(0xa0 | size);
        memcpy(to + 1, PyUnicode_1BYTE_DATA(value), (size_t)size);
        return to + 1 + size;
    }
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);

        if (overflow != 0 || number < 0)
            return NULL;
        if (number < 0x80) {
            *to = (unsigned char)number;
            return to + 1;
        }
        if (number <= UINT16_MAX) {
            *to = 0xcd;
            to[1] = (unsigned char)(number >> 8);
            to[2] = (unsigned char)number;
            return to + 3;
        }
        return write_64(to, 0xcf, (uint64_t)number);
    }
    if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        uint64_t bits;

        memcpy(&bits, &number, sizeof bits);
        return write_64(to, 0xcb, bits);
    }
    if (value != Py_None && !PyBool_Check(value))
        return NULL;
    *to = value == Py_None ? 0xc0 : value == Py_True ? 0xc3 : 0xc2;
    return to + 1;
}

static PyObject *put_dict(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    struct ring *self = (struct ring *)object;
    PyObject *item = count == 1 ? arguments[0] : NULL;
    unsigned char *data, *to;
    const unsigned char *end;
    PyObject *key, *value;
    Py_ssize_t place = 0;
    uint64_t position;

    if (item == NULL || !PyDict_CheckExact(item) || PyDict_GET_SIZE(item) > 15)
        return PyErr_Format(PyExc_TypeError, "not a small dict");
    data = begin_put(self, LARGEST - 8, &position);
    if (data == NULL)
        return NULL;
    end = data + LARGEST - 8;
    to = data;
    *to++ = (unsigned char)(0x80 | PyDict_GET_SIZE(item));
    while (to != NULL && PyDict_Next(item, &place, &key, &value)) {
        to = write_value(to, end, key);
        if (to != NULL)
            to = write_value(to, end, value);
    }
    if (to == NULL)
        return PyErr_Format(PyExc_TypeError, "unknown values: %R", item);
    end_put(self, data, (size_t)(to - data), position);
    Py_RETURN_NONE;
}

static inline PyObject *read_value(const unsigned char **from, const unsigned char *end)
{
    const unsigned char *at = *from;
    unsigned lead;
    uint64_t number;
    double real;
    PyObject *text;

    if (at == end)
        return NULL;
    lead = *at++;
    *from = at;
    if (lead < 0x80)
        return PyLong_FromLong((long)lead);
    if (lead >= 0xa0 && lead < 0xc0) {
        size_t size = lead & 0x1f;

        if ((size_t)(end - at) < size)
            return NULL;
        *from += size;
        text = PyUnicode_New((Py_ssize_t)size, 127);
        if (text != NULL)
            memcpy(PyUnicode_1BYTE_DATA(text), at, size);
        return text;
    }
    if (lead == 0xc0)
        return Py_NewRef(Py_None);
    if (lead == 0xc2 || lead == 0xc3)
        return PyBool_FromLong(lead == 0xc3);
    if (lead == 0xcd && end - at >= 2) {
        *from += 2;
        return PyLong_FromLong(at[0] << 8 | at[1]);
    }
    if ((lead != 0xcb && lead != 0xcf) || end - at < 8)
        return NULL;
    *from += 8;
    memcpy(&number, at, 8);
    number = be64toh(number);
    if (lead == 0xcf)
        return PyLong_FromUnsignedLongLong(number);
    memcpy(&real, &number, 8);
    return PyFloat_FromDouble(real);
}

static PyObject *read_dict(const unsigned char *data, size_t size)
{
    const unsigned char *end = data + size;
    PyObject *dict = size > 0 && (*data & 0xf0) == 0x80 ? PyDict_New() : NULL;
    unsigned count = dict == NULL ? 0 : *data++ & 0x0f;

    for (; count > 0; count--) {
        PyObject *key = read_value(&data, end);
        PyObject *value = key == NULL ? NULL : read_value(&data, end);
        int failed = value == NULL ? -1 : PyDict_SetItem(dict, key, value);

        Py_XDECREF(key);
        Py_XDECREF(value);
        if (failed) {
            Py_DECREF(dict);
            return NULL;
        }
    }
    return dict;
}

static PyObject *get_dict(PyObject *object, PyObject *const *Py_UNUSED(arguments), Py_ssize_t Py_UNUSED(count))
{
    struct ring *self = (struct ring *)object;
    uint64_t position, size;
    const unsigned char *data = begin_get(self, &position, &size);
    PyObject *item;

    if (data == NULL)
        return NULL;
    item = read_dict(data, size);
    if (item != NULL)
        end_get(self, position, size);
    else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "not a small dict");
    return item;
}

/* The type */

static PyObject *ring_new(PyTypeObject *type, PyObject *Py_UNUSED(arguments), PyObject *Py_UNUSED(names))
{
    struct ring *self = (struct ring *)type->tp_alloc(type, 0);

    if (self == NULL)
        return NULL;
    self->shared = mmap(NULL, sizeof *self->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE,
                        -1, 0);
    if (self->shared == MAP_FAILED) {
        self->shared = NULL;
        Py_DECREF(self);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return (PyObject *)self;
}

static void ring_dealloc(PyObject *object)
{
    struct ring *self = (struct ring *)object;
    PyTypeObject *type = Py_TYPE(object);

    if (self->shared != NULL)
        munmap(self->shared, sizeof *self->shared);
    type->tp_free(object);
    Py_DECREF(type);
}

#define TYPE(kind, title, put, put_kind, get, get_kind)                                                              \
    static PyMethodDef kind##_methods[] = {                                                                          \
        {"put", (PyCFunction)(void (*)(void))put, put_kind, NULL},                                                   \
        {"get", (PyCFunction)(void (*)(void))get, get_kind, NULL},                                                   \
        {NULL, NULL, 0, NULL},                                                                                       \
    };                                                                                                               \
    static PyType_Slot kind##_slots[] = {                                                                            \
        {Py_tp_new, ring_new},                                                                                       \
        {Py_tp_dealloc, ring_dealloc},                                                                               \
        {Py_tp_methods, kind##_methods},                                                                             \
        {0, NULL},                                                                                                   \
    };                                                                                                               \
    static PyType_Spec kind##_spec = {                                                                               \
        .name = "floor_ring." title,                                                                                 \
        .basicsize = sizeof(struct ring),                                                                            \
        .flags = Py_TPFLAGS_DEFAULT,                                                                                 \
        .slots = kind##_slots,                                                                                       \
    }

TYPE(ring, "Ring", put, METH_FASTCALL, get, METH_FASTCALL);
TYPE(plain_ring, "PlainRing", put_item, METH_O, get_item, METH_NOARGS);
TYPE(dict_ring, "DictRing", put_dict, METH_FASTCALL, get_dict, METH_FASTCALL);

/* Counting */

#ifdef CALLGRIND_TOGGLE_COLLECT
static PyObject *counted(PyObject *Py_UNUSED(module), PyObject *call)
{
    PyObject *result;

    CALLGRIND_TOGGLE_COLLECT;
    result = PyObject_CallNoArgs(call);
    CALLGRIND_TOGGLE_COLLECT;
    return result;
}

/* Writes the counts since the last report to a file with this title. */
static PyObject *report(PyObject *Py_UNUSED(module), PyObject *title)
{
    const char *text = PyUnicode_AsUTF8(title);

    if (text == NULL)
        return NULL;
    CALLGRIND_DUMP_STATS_AT(text);
    Py_RETURN_NONE;
}

static PyObject *start(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    CALLGRIND_START_INSTRUMENTATION;
    Py_RETURN_NONE;
}
#endif

static PyMethodDef functions[] = {
#ifdef CALLGRIND_TOGGLE_COLLECT
    {"counted", counted, METH_O, NULL},
    {"report", report, METH_O, NULL},
    {"start", start, METH_NOARGS, NULL},
#endif
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    PyType_Spec *specs[] = {&ring_spec, &plain_ring_spec, &dict_ring_spec};

    for (size_t index = 0; index < sizeof specs / sizeof *specs; index++) {
        PyObject *type = PyType_FromSpec(specs[index]);
        int failed = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);

        Py_XDECREF(type);
        if (failed)
            return failed;
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "floor_ring",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_floor_ring(void)
{
    return PyModuleDef_Init(&definition);
}
