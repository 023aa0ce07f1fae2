"""An open handle to a queue: moving messages, waiting, closing, and what a fork leaves of it."""
