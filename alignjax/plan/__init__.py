"""What a run needs before the machine is rented.

    topology ─► devices that are not there ─► mesh ─► the run's own programs
                                                       └► compiled: bytes a chip
"""

from alignjax.plan.chips import CHIPS
from alignjax.plan.chips import devices_of
from alignjax.plan.chips import parse_topology
from alignjax.plan.chips import Topology
from alignjax.plan.compiled import Measured
from alignjax.plan.compiled import plan
from alignjax.plan.fit import fit
from alignjax.plan.fit import Proposal
from alignjax.plan.fit import smallest_topology
from alignjax.plan.programs import METHODS
from alignjax.plan.programs import Shape

__all__ = ['CHIPS', 'METHODS', 'Measured', 'Proposal', 'Shape', 'Topology',
           'devices_of', 'fit', 'parse_topology', 'plan', 'smallest_topology']
