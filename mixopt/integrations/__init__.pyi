from .dcp import MixtureState as MixtureState
from .hf_trainer import MixtureTrainer as MixtureTrainer, OnlineTrainer as OnlineTrainer
from .lightning import MixtureDataModule as MixtureDataModule
from .megatron import MegatronMixture as MegatronMixture, epochs_of as epochs_of
from .torchtitan import MixtureDataLoader as MixtureDataLoader
