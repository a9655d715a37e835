# Makes 5 times 20,000 objects of 4 KiB and lets them go.
import time

start = time.perf_counter_ns()
for _ in range(5):
    objects = [bytes(4096) for _ in range(20000)]
    del objects
print("elapsed_ns", time.perf_counter_ns() - start)
