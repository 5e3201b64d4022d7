from .contract import (
    DriverOptions as DriverOptions,
    Estimator as Estimator,
    HeldOut as HeldOut,
    Need as Need,
    Observation as Observation,
    Plan as Plan,
    Setting as Setting,
    make_estimator as make_estimator,
)
from .driver import Driver as Driver
from .loss_sums import (
    COUNT as COUNT,
    LOSS as LOSS,
    ROWS as ROWS,
    UNIT as UNIT,
    DomainLosses as DomainLosses,
    held_out_losses as held_out_losses,
    is_first as is_first,
    on_first as on_first,
    summed as summed,
)
from .mixture_log import (
    MIXTURE_LOG as MIXTURE_LOG,
    LineLog as LineLog,
    LoggedChange as LoggedChange,
    MixtureLog as MixtureLog,
    read_changes as read_changes,
)
