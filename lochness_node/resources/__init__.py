"""What this hypervisor has for guests. `compute` does the sums, `facts` asks the machine, `shell` writes the record."""
