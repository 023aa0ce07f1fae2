"""The verbs of the command ``ipcq``, one file each; what they share is in the package above."""
