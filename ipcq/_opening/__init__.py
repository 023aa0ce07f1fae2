"""From a name to an open handle: address, options, choice of a backend, and the rendezvous with other processes."""
