"""The chat page of `smolvlm ui`, on Gradio.

`turn`, `conversation`, `line` and `tabs` know no Gradio: questions, what a tab remembers, and who has the engine. What draws the
page imports Gradio, and is imported only after `server.run_page` has set what Gradio reads from the environment.
"""
