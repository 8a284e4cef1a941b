"""Evaluations: suites of questions with exact answers, a runner for any `SmolVLM`, metrics and reports.

    from smolvlm.evals.runner import evaluate
    from smolvlm.evals.synth_suite import synth_suite
    report = evaluate(model, synth_suite(), tasks=("colour", "count"), items=250)

Nothing is imported here: the command line reads the defaults at every start.
"""
