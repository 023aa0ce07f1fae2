"""Files and modules that PyInstaller adds to a program that imports ipcq, and modules that it leaves out."""

from ipcq._pyinstaller import collected

datas, hiddenimports = collected()
# ipcq uses these only if the program imports them. PyInstaller would pack them whenever they are installed.
excludedimports = ["gevent", "numpy", "pandas", "polars", "pyarrow"]
