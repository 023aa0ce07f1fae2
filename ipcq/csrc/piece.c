#include "piece.h"

#include "wire.h"

bool piece_of_bytes(struct ipcq_piece *piece, PyObject *bytes, enum codec_format format, unsigned priority)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);

    piece_set(piece, PyBytes_AS_STRING(bytes), size, priority);
    if (format == FORMAT_RAW)
        return true;
    if (size > WIRE_LONGEST)
        return false;
    piece->head_size = (unsigned)(wire_write_bin(piece->head, (uint32_t)size) - piece->head);
    return true;
}

PyObject *piece_whole(const struct ipcq_piece *piece, PyObject *owner)
{
    PyObject *bytes;

    if (piece->head_size == 0 && owner != NULL && PyBytes_CheckExact(owner) &&
        PyBytes_AS_STRING(owner) == piece->data && (size_t)PyBytes_GET_SIZE(owner) == piece->size)
        return Py_NewRef(owner);
    bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)piece_size(piece));
    if (bytes != NULL) {
        memcpy(PyBytes_AS_STRING(bytes), piece->head, piece->head_size);
        memcpy(PyBytes_AS_STRING(bytes) + piece->head_size, piece->data, piece->size);
    }
    return bytes;
}
