"""Time and memory against comparators that are measured in the same run; one module a question.

python -m experiments.benchmarks --output bench            every question at full size
python -m experiments.benchmarks --output bench --short    smaller sizes, under ten minutes
python -m experiments.benchmarks.item_loss --output bench  one question
"""
