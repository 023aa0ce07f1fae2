"""Services of the process and the operating system: deadlines, forks, signals, threads, directories and limits."""
