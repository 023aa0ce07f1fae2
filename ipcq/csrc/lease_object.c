#include "lease_object.h"

#include <stddef.h>
#include <structmember.h> /* needs Python.h before it */

struct lease *lease_new(PyTypeObject *type)
{
    return (struct lease *)type->tp_alloc(type, 0); /* zeros */
}

PyObject *lease_number(const struct ipcq_token *token)
{
    PyObject *place = PyLong_FromUnsignedLong(token->place);
    PyObject *bits = PyLong_FromLong(IPCQ_SERIAL_BITS);
    PyObject *serial = PyLong_FromUnsignedLongLong(token->serial);
    PyObject *high = place == NULL || bits == NULL ? NULL : PyNumber_Lshift(place, bits);
    PyObject *number = high == NULL || serial == NULL ? NULL : PyNumber_Or(high, serial);

    Py_XDECREF(place);
    Py_XDECREF(bits);
    Py_XDECREF(serial);
    Py_XDECREF(high);
    return number;
}

/* Fields */

static PyObject *lease_get_token(PyObject *object, void *Py_UNUSED(unused))
{
    const struct lease *self = (const struct lease *)object;

    return self->number != NULL ? Py_NewRef(self->number) : lease_number(&self->token);
}

static int lease_set_token(PyObject *object, PyObject *number, void *Py_UNUSED(unused))
{
    Py_XSETREF(((struct lease *)object)->number, Py_XNewRef(number));
    return 0;
}

/* As in ipcq/_abilities/lease.py. */
static const char *const ends[] = {
    [LEASE_HELD] = "",
    [LEASE_ACKNOWLEDGED] = "acknowledged",
    [LEASE_RELEASED] = "released",
    [LEASE_GIVEN_BACK] = "given back",
    [LEASE_REJECTED] = "rejected",
    [LEASE_LOST] = "lost",
};

static PyObject *lease_get_end(PyObject *object, void *Py_UNUSED(unused))
{
    return PyUnicode_FromString(ends[((struct lease *)object)->end]);
}

static int lease_set_end(PyObject *object, PyObject *text, void *Py_UNUSED(unused))
{
    for (size_t end = 0; text != NULL && PyUnicode_Check(text) && end < sizeof ends / sizeof *ends; end++)
        if (PyUnicode_CompareWithASCIIString(text, ends[end]) == 0) {
            ((struct lease *)object)->end = (unsigned char)end;
            return 0;
        }
    PyErr_Format(PyExc_ValueError, "a lease does not end as %R", text == NULL ? Py_None : text);
    return -1;
}

static PyMemberDef lease_members[] = {
    {"item", T_OBJECT_EX, offsetof(struct lease, item), 0, NULL},
    {"priority", T_LONGLONG, offsetof(struct lease, priority), 0, NULL},
    {"deliveries", T_LONGLONG, offsetof(struct lease, deliveries), 0, NULL},
    {"failures", T_LONGLONG, offsetof(struct lease, failures), 0, NULL},
    {"_lessor", T_OBJECT_EX, offsetof(struct lease, lessor), 0, NULL},
    {"_session", T_OBJECT_EX, offsetof(struct lease, session), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef lease_attributes[] = {
    {"_token", lease_get_token, lease_set_token, NULL, NULL},
    {"_end", lease_get_end, lease_set_end, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* The type */

/* Gives back a lease that is dropped unsettled. */
static void lease_finalize(PyObject *object)
{
    const struct lease *self = (const struct lease *)object;
    const struct native_state *state;
    PyObject *error, *none = NULL;

    if (self->lessor == NULL || self->end != LEASE_HELD)
        return;
    error = PyErr_GetRaisedException();
    state = native_state_of(Py_TYPE(object));
    if (state != NULL)
        none = PyObject_VectorcallMethod(state->dropped, &object, 1, NULL);
    if (none == NULL)
        PyErr_WriteUnraisable(object);
    Py_XDECREF(none);
    PyErr_SetRaisedException(error);
}

static int lease_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct lease *self = (struct lease *)object;

    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->item);
    Py_VISIT(self->lessor);
    Py_VISIT(self->session);
    return 0;
}

static int lease_clear(PyObject *object)
{
    struct lease *self = (struct lease *)object;

    Py_CLEAR(self->item);
    Py_CLEAR(self->lessor);
    Py_CLEAR(self->session);
    Py_CLEAR(self->number);
    return 0;
}

/* Only of subclasses, whose own deallocation has called the finaliser. */
static void lease_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);

    PyObject_GC_UnTrack(object);
    lease_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyType_Slot lease_slots[] = {
    {Py_tp_doc, PyDoc_STR("The base class of leases, with the fields that calls in C need.")},
    {Py_tp_dealloc, lease_dealloc},
    {Py_tp_finalize, lease_finalize},
    {Py_tp_traverse, lease_traverse},
    {Py_tp_clear, lease_clear},
    {Py_tp_members, lease_members},
    {Py_tp_getset, lease_attributes},
    {0, NULL},
};

PyType_Spec lease_spec = {
    .name = "ipcq._native.LeaseBase",
    .basicsize = sizeof(struct lease),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = lease_slots,
};

/* Serial numbers */

static PyObject *serials_serial(PyObject *object, PyObject *number)
{
    size_t count = PyLong_AsSize_t(number);

    if (count == (size_t)-1 && PyErr_Occurred())
        return NULL;
    return PyLong_FromUnsignedLongLong(serials_take((struct serials *)object, count));
}

static PyMethodDef serials_methods[] = {
    {"serial", serials_serial, METH_O,
     PyDoc_STR("serial($self, count, /)\n--\n\nReturn the first of `count` unused serial numbers.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot serials_slots[] = {
    {Py_tp_doc, PyDoc_STR("The base class of a session: it has the next serial number.")},
    {Py_tp_methods, serials_methods},
    {0, NULL},
};

PyType_Spec serials_spec = {
    .name = "ipcq._native.Serials",
    .basicsize = sizeof(struct serials),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = serials_slots,
};
