/* `LeaseBase`: the base class of leases, with the fields that leasing and settling in C need. `Serials`: the base class
 * of a session, with its next serial number. */
#ifndef IPCQ_LEASE_OBJECT_H
#define IPCQ_LEASE_OBJECT_H

#include "native.h"

/* How a lease ended; the texts in Python are in lease_object.c. */
enum lease_end { LEASE_HELD, LEASE_ACKNOWLEDGED, LEASE_RELEASED, LEASE_GIVEN_BACK, LEASE_REJECTED, LEASE_LOST };

struct lease {
    PyObject_HEAD
    PyObject *item;
    PyObject *lessor;  /* a handle */
    PyObject *session; /* that of the handle when it leased */
    long long priority;
    long long deliveries;
    long long failures;
    PyObject *number; /* the token of a lease that was made in Python; else NULL */
    struct ipcq_token token;
    _Atomic unsigned char end; /* an enum lease_end */
    bool chosen;               /* while a batch is checked for duplicates */
};

/* Returns the token in Python. */
PyObject *lease_number(const struct ipcq_token *token);

/* Creates an object of a subclass, without a message. */
struct lease *lease_new(PyTypeObject *type);

struct serials {
    PyObject_HEAD
    _Atomic uint64_t last;
};

/* Returns the first of `count` unused serial numbers. */
static inline uint64_t serials_take(struct serials *self, uint64_t count)
{
    return atomic_fetch_add_explicit(&self->last, count, memory_order_relaxed) + 1;
}

#endif
