"""Several methods side by side on the user's task, on an equal footing.

Each method is an *arm*, measured in a process of its own: a search for its learning rate
within an equal budget, then one run a seed with the same data in the same order and the same
schedule. Rates are chosen on the validation split; the test split is read once a run, at the
end. What an arm found is a file of its own, so an interrupted comparison goes on where it was.

    request.py     what is compared, and the folder it is kept in
    fitting.py     which methods fit the model
    search.py      which learning rate to try next
    arm.py         one method: search, runs, measurements (``python -m lorafit.comparison.arm``)
    workers.py     runs arms in processes of their own
    outcome.py     compare.json: differences, verdicts, fronts
    recommendation.py  which method to take, of those that learned something
"""
