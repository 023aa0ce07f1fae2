"""The verbs of the command ``ipcq``, one file each. The parent package has their common parts."""
