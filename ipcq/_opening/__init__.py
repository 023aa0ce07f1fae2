"""From a name to an open handle: the address, the options, the choice of a backend, and meeting the other openers."""
