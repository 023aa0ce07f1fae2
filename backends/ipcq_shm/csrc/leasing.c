/* The methods of `Ring` for a queue with leases. A token has the cell as its place. */
#include "binding.h"

#include "clock.h"
#include "dead.h"
#include "lease.h"

/* As in ipcq/backend. */
#define STEP (1 << 23)
/* Dead letters that one call returns. */
#define MOST_LETTERS 1000

/* The queue of a `Ring`, if it has leases. */
static struct queue *leasing_queue(PyObject *self)
{
    struct queue *queue = core_queue_of(self);

    if (queue == NULL || queue->holders != NULL)
        return queue;
    PyErr_SetString(PyExc_TypeError, "the queue has no leases");
    return NULL;
}

/* Converts seconds; a duration that is not 0 is at least a nanosecond. */
static bool duration(PyObject *seconds, int64_t *nanoseconds)
{
    double value = PyFloat_AsDouble(seconds);

    if (value == -1 && PyErr_Occurred())
        return false;
    *nanoseconds = value > 0 ? (int64_t)((value < 4e9 ? value : 4e9) * 1e9) : 0;
    if (value > 0 && *nanoseconds == 0)
        *nanoseconds = 1;
    return true;
}

/* Of a lease: None is without end. */
static bool hold_of(PyObject *seconds, int64_t *nanoseconds)
{
    *nanoseconds = 0;
    if (seconds == Py_None)
        return true;
    if (!duration(seconds, nanoseconds))
        return false;
    if (*nanoseconds == 0)
        *nanoseconds = 1;
    return true;
}

/* Putting */

PyObject *core_put_delayed(PyObject *self, PyObject *arguments)
{
    struct queue *queue = leasing_queue(self);
    enum queue_result result;
    struct queue_piece piece = {0};
    PyObject *data, *seconds;
    int64_t delay;
    unsigned priority;

    if (queue == NULL || !PyArg_ParseTuple(arguments, "SIO", &data, &priority, &seconds) || !duration(seconds, &delay))
        return NULL;
    piece.data = PyBytes_AS_STRING(data);
    piece.size = (size_t)PyBytes_GET_SIZE(data);
    piece.priority = priority & HIGHEST_PRIORITY;
    result = lease_put_delayed(queue, &piece, delay > 0 ? delay : 1, 0);
    if (result == QUEUE_BUSY) {
        Py_BEGIN_ALLOW_THREADS
        result = lease_put_delayed(queue, &piece, delay > 0 ? delay : 1, QUEUE_PATIENCE);
        Py_END_ALLOW_THREADS
    }
    if (result == QUEUE_OK)
        Py_RETURN_TRUE;
    if (result == QUEUE_FULL || result == QUEUE_BUSY)
        Py_RETURN_FALSE;
    return core_raise(Py_TYPE(self), result);
}

/* Leasing */

/* Messages that are being taken, as tuples, all of which are created before the lock is taken. What is put into them is
 * created with the lock held, before the message changes its state: so nothing can fail afterwards. */
struct loans {
    PyObject *list;
    Py_ssize_t next;
    size_t bytes;
    const struct queue_lease *leases; /* of these, or of the next */
    const struct lease_dead *letters;
};

static bool new_loans(struct loans *loans, Py_ssize_t count, Py_ssize_t fields)
{
    loans->list = PyList_New(count);
    for (Py_ssize_t index = 0; loans->list != NULL && index < count; index++) {
        PyObject *tuple = PyTuple_New(fields);

        if (tuple == NULL)
            Py_CLEAR(loans->list);
        else
            PyList_SET_ITEM(loans->list, index, tuple);
    }
    return loans->list != NULL;
}

static PyObject *token_of(const struct queue_lease *lease)
{
    PyObject *high = PyLong_FromUnsignedLong(lease->cell);
    PyObject *bits = PyLong_FromLong(IPCQ_SERIAL_BITS);
    PyObject *low = PyLong_FromUnsignedLongLong(lease->serial);
    PyObject *shifted = high == NULL || bits == NULL ? NULL : PyNumber_Lshift(high, bits);
    PyObject *token = shifted == NULL || low == NULL ? NULL : PyNumber_Or(shifted, low);

    Py_XDECREF(high);
    Py_XDECREF(bits);
    Py_XDECREF(low);
    Py_XDECREF(shifted);
    return token;
}

/* Sets the field of a tuple, which may have one from a try that found damage; false if it could not be created. */
static bool set_field(PyObject *tuple, Py_ssize_t index, PyObject *field)
{
    Py_XDECREF(PyTuple_GET_ITEM(tuple, index));
    PyTuple_SET_ITEM(tuple, index, field);
    return field != NULL;
}

/* Creates only bytes and ints, so it runs no Python code. */
static void *room_in_loans(void *context, struct queue_piece *message)
{
    struct loans *loans = context;
    PyObject *tuple;
    bool made;

    if (loans->next == PyList_GET_SIZE(loans->list) || loans->bytes >= STEP)
        return NULL;
    tuple = PyList_GET_ITEM(loans->list, loans->next);
    made = set_field(tuple, 0, PyBytes_FromStringAndSize(NULL, (Py_ssize_t)message->size)) &&
           set_field(tuple, 1, PyLong_FromUnsignedLong(message->priority));
    if (loans->leases != NULL) {
        const struct queue_lease *lease = &loans->leases[loans->next];

        made = made && set_field(tuple, 2, PyLong_FromUnsignedLong(lease->deliveries)) &&
               set_field(tuple, 3, token_of(lease)) && set_field(tuple, 4, PyLong_FromUnsignedLong(lease->failures));
    } else {
        const struct lease_dead *letter = &loans->letters[loans->next];
        PyObject *reason = PyBytes_FromStringAndSize((const char *)letter->reason, (Py_ssize_t)letter->reason_size);

        made = set_field(tuple, 3, reason) && made && set_field(tuple, 2, PyLong_FromUnsignedLong(letter->deliveries)) &&
               set_field(tuple, 4, PyLong_FromUnsignedLongLong(letter->number));
    }
    if (!made) {
        PyErr_Clear();
        return NULL;
    }
    loans->next++;
    loans->bytes += message->size;
    return PyBytes_AS_STRING(PyTuple_GET_ITEM(tuple, 0));
}

/* Returns the list of what was taken. */
static PyObject *taken_of(PyObject *self, struct loans *loans, enum queue_result result, size_t taken)
{
    core_shorten(loans->list, (Py_ssize_t)taken);
    if (result == QUEUE_OK || result == QUEUE_EMPTY || result == QUEUE_BUSY)
        return loans->list;
    Py_DECREF(loans->list);
    return core_raise(Py_TYPE(self), result);
}

PyObject *core_lease(PyObject *self, PyObject *arguments)
{
    struct queue *queue = leasing_queue(self);
    unsigned long long serial;
    Py_ssize_t limit;
    PyObject *seconds;
    struct queue_lease one, *leases;
    struct loans loans = {0};
    enum queue_result result;
    size_t taken = 0;
    int64_t hold, until = 0;

    if (queue == NULL || !PyArg_ParseTuple(arguments, "KnO", &serial, &limit, &seconds) || !hold_of(seconds, &hold))
        return NULL;
    if ((uint64_t)limit > queue->limit / CELL_COST) /* more cannot be there */
        limit = (Py_ssize_t)(queue->limit / CELL_COST);
    leases = limit == 1 ? &one : PyMem_New(struct queue_lease, (size_t)limit);
    loans.leases = leases;
    if (leases == NULL || !new_loans(&loans, limit, 5)) {
        if (leases != &one)
            PyMem_Free(leases);
        return PyErr_NoMemory();
    }
    do {
        result = queue_lease(queue, room_in_loans, &loans, serial, hold, leases, (size_t)limit, &taken, 0);
    } while (result == QUEUE_BUSY && core_settled(queue, &until));
    if (leases != &one)
        PyMem_Free(leases);
    return taken_of(self, &loans, result, taken);
}

/* Settling */

static bool read_token(PyObject *number, struct lease_token *token)
{
    unsigned long long low = PyLong_AsUnsignedLongLongMask(number);
    PyObject *bits, *high;
    unsigned long cell;

    if (low == (unsigned long long)-1 && PyErr_Occurred())
        return false;
    bits = PyLong_FromLong(IPCQ_SERIAL_BITS);
    high = bits == NULL ? NULL : PyNumber_Rshift(number, bits);
    Py_XDECREF(bits);
    if (high == NULL)
        return false;
    cell = PyLong_AsUnsignedLong(high);
    Py_DECREF(high);
    if (cell == (unsigned long)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return false;
        PyErr_Clear();
        cell = UINT32_MAX; /* not a token of ours */
    }
    token->cell = cell < UINT32_MAX ? (uint32_t)cell : UINT32_MAX;
    token->serial = low & ((UINT64_C(1) << IPCQ_SERIAL_BITS) - 1);
    return true;
}

/* What the calls that take tokens have in common. */
struct settling {
    PyObject *numbers; /* a tuple */
    PyObject *lost_numbers; /* a list of the same size, so that nothing can fail after a commit */
    size_t count;
    struct lease_token *tokens;
    bool *lost;
};

static void end_settling(struct settling *settling)
{
    PyMem_Free(settling->tokens);
    PyMem_Free(settling->lost);
    Py_XDECREF(settling->numbers);
    Py_XDECREF(settling->lost_numbers);
}

static bool begin_settling(struct settling *settling, PyObject *numbers)
{
    *settling = (struct settling){.numbers = PySequence_Tuple(numbers)};
    if (settling->numbers == NULL)
        return false;
    settling->count = (size_t)PyTuple_GET_SIZE(settling->numbers);
    settling->lost_numbers = PyList_New((Py_ssize_t)settling->count);
    settling->tokens = PyMem_New(struct lease_token, settling->count);
    settling->lost = PyMem_New(bool, settling->count);
    if (settling->lost_numbers == NULL || settling->tokens == NULL || settling->lost == NULL) {
        end_settling(settling);
        PyErr_NoMemory();
        return false;
    }
    for (size_t which = 0; which < settling->count; which++) {
        if (!read_token(PyTuple_GET_ITEM(settling->numbers, (Py_ssize_t)which), &settling->tokens[which])) {
            end_settling(settling);
            return false;
        }
    }
    return true;
}

/* Returns the list of lost tokens. */
static PyObject *lost_of(PyObject *self, struct settling *settling, enum queue_result result)
{
    PyObject *lost = NULL;

    if (result == QUEUE_OK) {
        Py_ssize_t found = 0;

        lost = Py_NewRef(settling->lost_numbers);
        for (size_t which = 0; which < settling->count; which++)
            if (settling->lost[which])
                PyList_SET_ITEM(lost, found++, Py_NewRef(PyTuple_GET_ITEM(settling->numbers, (Py_ssize_t)which)));
        core_shorten(lost, found);
    } else {
        core_raise(Py_TYPE(self), result);
    }
    end_settling(settling);
    return lost;
}

PyObject *core_end_leases(PyObject *self, PyObject *arguments)
{
    struct queue *queue = leasing_queue(self);
    struct lease_order order = {0};
    struct settling settling;
    PyObject *numbers, *seconds;
    enum queue_result result;
    const char *reason;
    Py_ssize_t size;
    int verdict;

    if (queue == NULL || !PyArg_ParseTuple(arguments, "OiOy#", &numbers, &verdict, &seconds, &reason, &size) ||
        !duration(seconds, &order.delay) || !begin_settling(&settling, numbers))
        return NULL;
    order.verdict = (enum lease_verdict)verdict;
    order.reason = reason;
    order.reason_size = size < CELL_REASON ? (size_t)size : CELL_REASON;
    result = lease_settle(queue, settling.tokens, settling.count, &order, settling.lost, 0);
    if (result == QUEUE_BUSY) {
        Py_BEGIN_ALLOW_THREADS
        result = lease_settle(queue, settling.tokens, settling.count, &order, settling.lost, LONG_PATIENCE);
        Py_END_ALLOW_THREADS
    }
    return lost_of(self, &settling, result);
}

PyObject *core_extend_leases(PyObject *self, PyObject *arguments)
{
    struct queue *queue = leasing_queue(self);
    struct settling settling;
    PyObject *numbers, *seconds;
    enum queue_result result;
    int64_t hold;

    if (queue == NULL || !PyArg_ParseTuple(arguments, "OO", &numbers, &seconds) || !hold_of(seconds, &hold) ||
        !begin_settling(&settling, numbers))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = lease_extend(queue, settling.tokens, settling.count, hold, settling.lost, LONG_PATIENCE);
    Py_END_ALLOW_THREADS
    return lost_of(self, &settling, result);
}

PyObject *core_find_lost(PyObject *self, PyObject *numbers)
{
    struct queue *queue = leasing_queue(self);
    struct settling settling;
    enum queue_result result;

    if (queue == NULL || !begin_settling(&settling, numbers))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = lease_find_lost(queue, settling.tokens, settling.count, settling.lost, LONG_PATIENCE);
    Py_END_ALLOW_THREADS
    return lost_of(self, &settling, result);
}

PyObject *core_recall(PyObject *self, PyObject *arguments)
{
    struct queue *queue = leasing_queue(self);
    unsigned long long serial, count;
    enum queue_result result;

    if (queue == NULL || !PyArg_ParseTuple(arguments, "KK", &serial, &count))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = lease_recall(queue, serial, count, LONG_PATIENCE);
    Py_END_ALLOW_THREADS
    if (result != QUEUE_OK)
        return core_raise(Py_TYPE(self), result);
    Py_RETURN_NONE;
}

PyObject *core_release_leases(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = leasing_queue(self);

    if (queue == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    lease_release_all(queue, LONG_PATIENCE);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* Looking */

PyObject *core_tend(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = leasing_queue(self);
    enum queue_result result;
    int64_t wait = 0;

    if (queue == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = lease_tend(queue, &wait, QUEUE_PATIENCE);
    Py_END_ALLOW_THREADS
    if (result == QUEUE_BUSY)
        return PyFloat_FromDouble(0.05); /* the owner of the lock may still lease or delay something */
    if (result != QUEUE_OK)
        return core_raise(Py_TYPE(self), result);
    if (wait == 0)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)wait * 1e-9);
}

bool core_count(PyObject *self, struct queue *queue, struct lease_counts *counts)
{
    enum queue_result result = lease_count(queue, counts, 0);

    if (result == QUEUE_BUSY) {
        Py_BEGIN_ALLOW_THREADS
        result = lease_count(queue, counts, QUEUE_PATIENCE);
        Py_END_ALLOW_THREADS
    }
    if (result == QUEUE_GONE)
        core_raise(Py_TYPE(self), result);
    return result != QUEUE_GONE;
}

PyObject *core_counts(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = leasing_queue(self);
    struct lease_counts counts;

    if (queue == NULL || !core_count(self, queue, &counts))
        return NULL;
    return Py_BuildValue("(IIII)", counts.ready, counts.leased, counts.delayed, counts.dead);
}

PyObject *core_held(PyObject *self, PyObject *number)
{
    struct queue *queue = leasing_queue(self);
    size_t limit = queue == NULL ? 0 : PyLong_AsSize_t(number);
    enum queue_result result;
    struct lease_held *held;
    size_t found = 0;
    uint32_t now = (uint32_t)(clock_now_coarse() / 1000000000);
    PyObject *list;

    if (PyErr_Occurred())
        return NULL;
    limit = limit < queue->limit / CELL_COST ? limit : (size_t)(queue->limit / CELL_COST);
    held = PyMem_New(struct lease_held, limit);
    if (held == NULL)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    result = lease_held(queue, held, limit, &found, LONG_PATIENCE);
    Py_END_ALLOW_THREADS
    list = result == QUEUE_OK ? PyList_New((Py_ssize_t)found) : core_raise(Py_TYPE(self), result);
    for (size_t which = 0; list != NULL && which < found; which++) {
        PyObject *each = Py_BuildValue("(idI)", held[which].slot == queue->slot ? -1 : (int)held[which].slot,
                                       (double)(now - held[which].since), held[which].deliveries);

        if (each == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)which, each);
    }
    PyMem_Free(held);
    return list;
}

/* Dead letters: tuples of data, priority, deliveries, reason and number. */

PyObject *core_peek_dead(PyObject *self, PyObject *arguments)
{
    struct queue *queue = leasing_queue(self);
    struct loans loans = {0};
    struct lease_dead *letters;
    unsigned long long after;
    enum queue_result result;
    Py_ssize_t limit;
    size_t found = 0;
    int64_t until = 0;

    if (queue == NULL || !PyArg_ParseTuple(arguments, "Kn", &after, &limit))
        return NULL;
    limit = limit < MOST_LETTERS ? limit : MOST_LETTERS;
    letters = PyMem_New(struct lease_dead, (size_t)limit);
    loans.letters = letters;
    if (letters == NULL || !new_loans(&loans, limit, 5)) {
        PyMem_Free(letters);
        return PyErr_NoMemory();
    }
    do {
        result = lease_peek_dead(queue, after, room_in_loans, &loans, letters, (size_t)limit, &found, 0);
    } while (result == QUEUE_BUSY && core_settled(queue, &until));
    PyMem_Free(letters);
    return taken_of(self, &loans, result, found);
}

PyObject *core_take_dead(PyObject *self, PyObject *number)
{
    struct queue *queue = leasing_queue(self);
    unsigned long long value = queue == NULL ? 0 : PyLong_AsUnsignedLongLong(number);
    enum queue_result result;

    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = lease_take_dead(queue, value, LONG_PATIENCE);
    Py_END_ALLOW_THREADS
    if (result == QUEUE_OK || result == QUEUE_EMPTY)
        return PyBool_FromLong(result == QUEUE_OK);
    return core_raise(Py_TYPE(self), result);
}

PyObject *core_requeue(PyObject *self, PyObject *number)
{
    struct queue *queue = leasing_queue(self);
    size_t limit = queue == NULL ? 0 : PyLong_AsSize_t(number);
    enum queue_result result;
    size_t count;

    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = lease_requeue(queue, limit, &count, LONG_PATIENCE);
    Py_END_ALLOW_THREADS
    return result == QUEUE_OK ? PyLong_FromSize_t(count) : core_raise(Py_TYPE(self), result);
}

PyObject *core_clear_dead(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return core_drop(self, leasing_queue(self), lease_clear_dead);
}
