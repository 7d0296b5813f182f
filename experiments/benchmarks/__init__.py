"""How fast, and how much memory: one script a question, each against a comparator measured in the same run.

python -m experiments.benchmarks --output bench            every question at full size
python -m experiments.benchmarks --output bench --short    smaller sizes, under ten minutes
python -m experiments.benchmarks.item_loss --output bench  one question
"""
