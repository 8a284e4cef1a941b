"""The model behind the routes: one thread that schedules all answers, and what it shares between them."""
