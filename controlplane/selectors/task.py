"""`task`: the unit of work that the grant is for."""

from controlplane.model.selection import Selector

SELECTOR = Selector(
    word="task",
    about="the task's id, as its owner chose it",
    example="task=T-1042",
    values=lambda one, _: (one.task,),
)
