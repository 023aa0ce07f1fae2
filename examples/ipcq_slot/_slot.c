/* An example for authors of backends: a queue of one small message in one process, with functions in C for ipcq. */
#include <Python.h>

#include <ipcq/channel.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST 1000 /* below IPCQ_LARGE, so all functions are called "locked" */

struct slot {
    struct ipcq_channel table;
    pthread_mutex_t lock; /* a free-threaded Python has no GIL, and each handle locks only itself */
    int full;
    size_t size;
    unsigned char message[LARGEST];
};

static int put(void *context, const struct ipcq_piece *piece, int polite)
{
    struct slot *slot = context;
    int result = IPCQ_FULL;

    (void)polite;
    pthread_mutex_lock(&slot->lock);
    if (!slot->full) {
        memcpy(slot->message, piece->head, piece->head_size);
        memcpy(slot->message + piece->head_size, piece->data, piece->size);
        slot->size = piece->head_size + piece->size;
        slot->full = 1;
        result = IPCQ_OK;
    }
    pthread_mutex_unlock(&slot->lock);
    return result;
}

/* ipcq first offers a space of 1,024 bytes without a head, which is enough for every message here. */
static int get(void *context, struct ipcq_space *space, int polite)
{
    struct slot *slot = context;
    int result = IPCQ_EMPTY;

    (void)polite;
    pthread_mutex_lock(&slot->lock);
    if (slot->full) {
        result = IPCQ_OTHER;
        if (space->head_size == 0 && space->size >= slot->size) {
            memcpy(space->data, slot->message, slot->size);
            space->message_size = slot->size;
            space->priority = 0;
            slot->full = 0;
            result = IPCQ_OK;
        }
    }
    pthread_mutex_unlock(&slot->lock);
    return result;
}

/* For the channel in Python: the capsule is the queue, and the functions call those of the table. */

static void drop(PyObject *capsule)
{
    free(PyCapsule_GetPointer(capsule, IPCQ_CHANNEL_CAPSULE));
}

static PyObject *new_slot(PyObject *module, PyObject *unused)
{
    struct slot *slot = calloc(1, sizeof *slot);

    (void)module, (void)unused;
    if (slot == NULL)
        return PyErr_NoMemory();
    pthread_mutex_init(&slot->lock, NULL);
    slot->table = (struct ipcq_channel){
        .version = IPCQ_CHANNEL_VERSION,
        .size = sizeof slot->table,
        .context = slot,
        .max_message_size = LARGEST,
        .put = put,
        .get = get, /* the others are NULL, so ipcq calls the channel's methods for batches and waits */
    };
    return PyCapsule_New(&slot->table, IPCQ_CHANNEL_CAPSULE, drop);
}

static PyObject *try_put(PyObject *module, PyObject *arguments)
{
    PyObject *capsule;
    struct ipcq_piece piece = {0};
    Py_buffer data;
    struct ipcq_channel *table;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*", &capsule, &data))
        return NULL;
    piece.data = data.buf;
    piece.size = (size_t)data.len;
    table = PyCapsule_GetPointer(capsule, IPCQ_CHANNEL_CAPSULE);
    PyObject *stored = table == NULL ? NULL : PyBool_FromLong(table->put(table->context, &piece, 0) == IPCQ_OK);

    PyBuffer_Release(&data);
    return stored;
}

static PyObject *try_get(PyObject *module, PyObject *capsule)
{
    unsigned char message[LARGEST];
    struct ipcq_space space = {.data = message, .size = sizeof message};
    struct ipcq_channel *table = PyCapsule_GetPointer(capsule, IPCQ_CHANNEL_CAPSULE);

    (void)module;
    if (table == NULL)
        return NULL;
    if (table->get(table->context, &space, 0) != IPCQ_OK)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)message, (Py_ssize_t)space.message_size);
}

static PyMethodDef functions[] = {
    {"new", new_slot, METH_NOARGS, NULL},
    {"try_put", try_put, METH_VARARGS, NULL},
    {"try_get", try_get, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_slot",
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__slot(void)
{
    return PyModule_Create(&module);
}
