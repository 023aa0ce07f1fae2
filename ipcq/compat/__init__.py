"""Drop-in replacements for the queues of other libraries."""
