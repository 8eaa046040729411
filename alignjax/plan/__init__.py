"""What a run needs before the machine is rented.

    topology ─► devices that are not there ─► mesh ─► the run's own programs
                                                       └► compiled: bytes a chip
"""

from alignjax.plan.compiled import Measured
from alignjax.plan.compiled import plan
from alignjax.plan.devices import devices_of
from alignjax.plan.fit import fit
from alignjax.plan.fit import Proposal
from alignjax.plan.fit import smallest_topology
from alignjax.plan.programs import METHODS
from alignjax.plan.programs import Shape
from alignjax.topologies import parse_topology

__all__ = ['METHODS', 'Measured', 'Proposal', 'Shape', 'devices_of', 'fit',
           'parse_topology', 'plan', 'smallest_topology']
