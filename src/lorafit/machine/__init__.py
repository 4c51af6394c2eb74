"""What this machine is: its processor, its memory, and what a container leaves of both.

    processor.py   name, instructions, cores, threads
    memory.py      memory there is and peaks of this process
    cgroup.py      limits of the container
    allocator.py   keeps freed memory in the process
    environment.py what is noted of it
    describe.py    all of it for a run's record
    doctor.py      all of it for ``lorafit doctor``, with what would be slow

Nothing here imports torch at the top but `describe`, which records what torch sees.
"""
