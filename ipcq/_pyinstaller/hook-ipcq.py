"""Files and modules that PyInstaller adds to a program that imports ipcq, and modules that it leaves out."""

from ipcq._pyinstaller import collected

datas, hiddenimports = collected()
# ipcq uses gevent only if the program imports it. PyInstaller would pack it whenever it is installed.
excludedimports = ["gevent"]
