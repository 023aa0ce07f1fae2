"""What PyInstaller adds to a program that imports ipcq, and what it leaves out."""

from ipcq._pyinstaller import collected

datas, hiddenimports = collected()
# ipcq works with gevent if the program has imported it; PyInstaller would pack it wherever it is installed.
excludedimports = ["gevent"]
