"""`smolvlm serve`: an OpenAI-compatible server. From the ground up:

    errors, config       what clients are told in OpenAI's format; one frozen dataclass of settings
    pace, fair_queue, tile_cache, prefix_cache, job, scheduler      continuous batching over any `Engine`, in one thread
    media_*, fair_slots  what may come in, decoded in worker processes at which owners take turns
    background, confinement, landlock, seccomp      what such processes leave to the engine, and what they give up
    keys, quotas, files, metrics, logs                              who may ask, and what is kept and counted
    backend              a conversation -> a prompt -> a job -> updates
    chat_*, responses_*, routes_*, middleware, app, server          HTTP

Needs `pip install "smolvlm[serve]"`.
"""
