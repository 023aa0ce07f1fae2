"""Pickle, protocol 5: any Python object, and code that runs when it is read; by explicit leave on both ends alone."""

import pickle
from functools import partial

encode = partial(pickle.dumps, protocol=5)
decode = pickle.loads
