"""What the process and the operating system give: deadlines, forks, signals, threads, directories and limits."""
