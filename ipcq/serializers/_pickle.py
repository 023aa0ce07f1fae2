"""Pickle, protocol 5: any Python object; decoding can run any code, so both ends must allow it explicitly."""

import pickle
from functools import partial

encode = partial(pickle.dumps, protocol=5)
decode = pickle.loads
