"""What every step uses while it runs: devices, several processes, files, locks, schedules, progress."""
