"""`task`: the unit of work that the grant is for, or any that this one is a part of."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="task",
    about="the task's id, as its owner chose it; its parts too",
    example="task=T-1042",
    kept=Kept.TASK,
)
