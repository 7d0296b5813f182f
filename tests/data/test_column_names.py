"""The columns of tables: derived lists, and what a new text column needs."""

import subprocess
import sys
from pathlib import Path

from cllm4rec.data import column_names
from cllm4rec.data.column_names import ALIASES, EVENT_COLUMNS, ITEM_COLUMNS, ITEM_TEXTS, JOINERS, USER_TEXTS
from tests.support.tables import written

# A copy of column_names.py with one more line replaces the module before any other is imported.
PREPARE_WITH_PUBLISHER = """
import importlib.util
import sys
source = open(sys.argv[1]).read()
line = '    Column("publisher", (ITEMS,), ("label",), joiner=" "),\\n'
source = source.replace('    Column("brand"', line + '    Column("brand"')
spec = importlib.util.spec_from_loader("cllm4rec.data.column_names", loader=None)
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
exec(source, module.__dict__)

from cllm4rec import prepare
from cllm4rec.corpora.content import content_documents
from cllm4rec.corpora.tokenizer import ExtendedTokenizer, train_bpe
from cllm4rec.data.dataset import Dataset

prepare.main(["--interactions", "e.csv", "--items", "i.csv", "--output", "data", "--split", "none"])
dataset = Dataset.load("data")
print(dataset.item_texts["publisher"])
words = train_bpe(["a book"], 300)
tokenizer = ExtendedTokenizer(words, len(words), dataset.n_users, dataset.n_items)
print([field for _, field, *_ in content_documents(dataset.train, tokenizer)])
"""


def test_the_id_is_the_first_column_and_the_others_are_texts() -> None:
    assert EVENT_COLUMNS[:2] == ("user_id", "item_id")
    assert ITEM_COLUMNS == ("item_id", *ITEM_TEXTS)
    assert ITEM_TEXTS == ("title", "description", "categories", "brand", "year")
    assert USER_TEXTS == ("biography",)
    assert [name for name in (*ITEM_TEXTS, *USER_TEXTS) if JOINERS[name] is None] == []


def test_no_name_of_a_source_leads_to_two_columns_of_one_table() -> None:
    for columns in (EVENT_COLUMNS, ITEM_COLUMNS, column_names.USER_COLUMNS):
        names = [name for column in columns for name in ALIASES[column]]
        assert len(names) == len(set(names))


def test_a_new_text_column_of_items_is_one_line(tmp_path: Path) -> None:
    written(tmp_path / "e.csv", "user_id,item_id\nu,a\nv,a\n")
    written(tmp_path / "i.csv", "item_id,title,label\na,Dune,Chilton\n")
    command = [sys.executable, "-c", PREPARE_WITH_PUBLISHER, str(column_names.__file__)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["['Chilton']", "['title', 'publisher']"]
