from .data.dataset import Dataset as Dataset
from .data.dataset import Task as Task
from .evaluation import Measurement as Measurement
from .evaluation import bootstrap_interval as bootstrap_interval
from .evaluation import differences as differences
from .evaluation import measure as measure
from .evaluation import measure_choices as measure_choices
from .models import load as load
from .models.base import Recommender as Recommender
from .models.baselines.config import EASEConfig as EASEConfig
from .models.baselines.config import IALSConfig as IALSConfig
from .models.baselines.config import ItemKNNConfig as ItemKNNConfig
from .models.baselines.ease import EASE as EASE
from .models.baselines.ials import IALS as IALS
from .models.baselines.itemknn import ItemKNN as ItemKNN
from .models.baselines.popularity import Popularity as Popularity
from .models.cllm4rec.config import CLLM4RecConfig as CLLM4RecConfig
from .models.cllm4rec.recommender import CLLM4Rec as CLLM4Rec
from .models.rsllm.config import RSLLMConfig as RSLLMConfig
from .models.rsllm.recommender import RSLLM as RSLLM
from .models.sequential.config import SASRecConfig as SASRecConfig
from .models.sequential.config import SequentialConfig as SequentialConfig
from .models.sequential.gru4rec import GRU4Rec as GRU4Rec
from .models.sequential.sasrec import SASRec as SASRec
from .ranking import Ranking as Ranking
from .training.config import TrainConfig as TrainConfig

__version__: str
