"""Past one process: batches of any size on Ray Data, and the server on Ray Serve.

`smolvlm batch` asks about any number of pictures and videos. From the ground up:

    errors, items, settings     what went wrong; one input; what is asked of all of them
    shards, inputs, plan        folders, lists, Parquet and WebDataset shards -> a frozen plan, cut into parts
    folder, merging             the run's folder: its plan, its parts, one row an input and question; the one file at the end
    opening, attempts, asking   an input -> its bytes -> rows; inputs that end the process again and again
    worker, pool, batch         a part -> a file; the same on Ray; the whole run

`replica_options` and `ray_serve` are the deployment of the server: arguments; replicas and the application that Serve builds.

Needs `pip install "smolvlm[scale]"`, without `--workers` and `--ray` pyarrow alone; for Ray Serve `"smolvlm[ray-serve]"`.
"""
