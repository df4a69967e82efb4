"""Which operators of a program go to CLML, in which graphs, and why the others stay.

Runs in TVM's own Python. What CLML's runtime can be given is upstream's table
(`tvm.relax.backend.adreno.clml`) and what its JSON runtime knows besides; every refusal has its
reason. A subgraph is as much as can run without anything else in between.

Values have *stages*: operators that stay belong to the stage of what they need; what goes to CLML
belongs to the next, unless all that it needs is of CLML and of its own stage. So no path leaves a
subgraph and comes back to it.
"""

import math
from collections import defaultdict

from tvm import relax
from tvm.ir import Op

HEAVY = ("conv2d", "dense")
"""What makes a subgraph worth the way; the others only follow."""

BINARY = {
    "relax.add": "add",
    "relax.subtract": "subtract",
    "relax.multiply": "multiply",
    "relax.divide": "divide",
}


class Node:
    """One operator of the program: its variable, what it computes, what it needs.

    `kind` is CLML's name for it, None where `reason` says why it stays. `operands` are variables
    that CLML is given, `absorbed` those whose operators are part of this one.
    """

    def __init__(self, variable, call):
        self.variable = variable
        self.call = call
        self.product = call
        self.kind = None
        self.reason = ""
        self.operands = []
        self.attributes = {}
        self.absorbed = ()
        self.stage = 0
        self.group = None

    @property
    def operator(self):
        """Relax's name for it."""
        call = self.call
        if isinstance(call, relax.Call) and isinstance(call.op, Op):
            return call.op.name
        return type(call).__name__


def nodes_of(function):
    """Every operator in order, and which of them use each variable."""
    (block,) = function.body.blocks
    nodes = [Node(binding.var, binding.value) for binding in block.bindings]
    users = defaultdict(list)
    for node in nodes:
        for variable in needed(node.call):
            users[variable].append(node)
    return nodes, users


def needed(call):
    """The variables that an expression refers to."""
    found = []

    def visit(expression):
        if isinstance(expression, relax.Var) and expression not in found:
            found.append(expression)

    relax.analysis.post_order_visit(call, visit)
    return found


def classify(nodes, users, parameters, outputs):
    """Give every node that CLML can take its kind, and every other its reason."""
    by_variable = {node.variable: node for node in nodes}
    seen = _Seen(by_variable, users, parameters, outputs)
    for node in nodes:
        rule = RULES.get(node.operator)
        if rule is None:
            node.reason = "CLML has no such operator"
        else:
            rule(node, seen)
    absorbed = {variable for node in nodes if node.kind for variable in node.absorbed}
    return [node for node in nodes if node.variable not in absorbed]


class _Seen:
    """What the rules look at around a node."""

    def __init__(self, by_variable, users, parameters, outputs):
        self.by_variable = by_variable
        self.users = users
        self.parameters = parameters
        self.outputs = outputs

    def producer(self, variable, operator):
        node = self.by_variable.get(variable)
        return node if node is not None and node.operator == operator else None

    def only_here(self, variable):
        """Whether one operator alone uses it."""
        return len(self.users[variable]) == 1 and variable not in self.outputs

    def parameter_behind(self, variable, operator):
        """The parameter that a variable is another shape of, for its one user alone."""
        node = self.producer(variable, operator)
        source = None if node is None else node.call.args[0]
        return source if source in self.parameters and self.only_here(variable) else None


def _conv2d(node, seen):
    data, weight = node.call.args
    attrs = node.call.attrs
    if weight not in seen.parameters:
        node.reason = "its kernel is computed, and CLML's is a constant"
    elif (attrs.data_layout, attrs.kernel_layout) != ("NCHW", "OIHW"):
        node.reason = f"layout {attrs.data_layout}/{attrs.kernel_layout}"
    elif int(attrs.groups) != 1:
        node.reason = f"{attrs.groups} groups"
    elif shape_of(data)[0] != 1:
        node.reason = f"batch {shape_of(data)[0]}"
    else:
        node.kind, node.operands = "conv2d", [data, weight]
        node.attributes = {
            "strides": [int(n) for n in attrs.strides],
            "padding": [int(n) for n in attrs.padding],
            "dilation": [int(n) for n in attrs.dilation],
            "groups": 1,
        }


def _matmul(node, seen):
    first, second = node.call.args
    turned = seen.producer(second, "relax.permute_dims")
    if len(shape_of(first)) != 2 or len(shape_of(second)) != 2:
        node.reason = f"a product of {len(shape_of(first))} axes"
    elif turned is None or not seen.only_here(second):
        node.reason = "its second factor is not transposed, and CLML multiplies A B^T alone"
    else:
        node.kind, node.operands = "dense", [first, turned.call.args[0]]
        node.absorbed = (second,)


def _binary(node, seen):
    first, second = node.call.args
    if node.operator == "relax.add" and _with_bias(node, first, second, seen):
        return
    shapes = [shape_of(first), shape_of(second)]
    if shapes[0] != shapes[1]:
        node.reason = "it broadcasts, and CLML adds what has the same shape"
    elif shapes[0][:1] != [1] or len(shapes[0]) > 4:
        node.reason = f"batch {shapes[0][0] if shapes[0] else 'none'}"
    elif any(v in seen.parameters or not isinstance(v, relax.Var) for v in (first, second)):
        node.reason = "one operand is a constant"
    else:
        node.kind, node.operands = BINARY[node.operator], [first, second]


def _with_bias(node, first, second, seen):
    """Whether an addition is the bias of a convolution, or of a vector's product."""
    layer = seen.by_variable.get(first)
    if layer is None or layer.kind not in HEAVY or len(layer.operands) != 2:
        return False
    if not seen.only_here(first):
        return False
    if layer.kind == "conv2d":
        bias = seen.parameter_behind(second, "relax.reshape")
        if bias is None or shape_of(second) != [1, shape_of(first)[1], 1, 1]:
            return False
        node.absorbed = (first, second, *layer.absorbed)
    else:
        bias = second
        if bias not in seen.parameters or shape_of(first) != [1, *shape_of(bias)]:
            return False
        node.absorbed = (first, *layer.absorbed)
    node.kind, node.attributes = layer.kind, layer.attributes
    node.operands = [*layer.operands, bias]
    node.product = layer.call
    return True


def _softmax(node, _):
    data, axis = node.call.args[0], int(node.call.attrs.axis)
    if len(shape_of(data)) == 4 and axis == 1:
        node.kind, node.operands, node.attributes = "softmax", [data], {"axis": 1}
    else:
        node.reason = f"axis {axis} of {_say(shape_of(data))}, and CLML's is that of channels"


def _reshape(node, seen):
    shape = shape_of(node.variable)
    if len(shape) > 4 or node.call.args[0] in seen.parameters:
        node.reason = "moves nothing"
    else:
        node.kind, node.operands = "reshape", [node.call.args[0]]


def _concat(node, _):
    fields = node.call.args[0]
    axis = int(node.call.attrs.axis)
    if not isinstance(fields, relax.Tuple) or axis != 1 or len(shape_of(node.variable)) != 4:
        node.reason = f"axis {axis} of {_say(shape_of(node.variable))}"
    else:
        node.kind, node.operands, node.attributes = "concatenate", list(fields.fields), {"axis": 1}


RULES = {
    "relax.nn.conv2d": _conv2d,
    "relax.matmul": _matmul,
    "relax.nn.softmax": _softmax,
    "relax.reshape": _reshape,
    "relax.concat": _concat,
    **dict.fromkeys(BINARY, _binary),
}


def divide(nodes, users, parameters, outputs):
    """Set the stage of every node and the group of those that CLML runs; return the groups."""
    by_variable = {node.variable: node for node in nodes}
    for node in nodes:
        by_variable |= dict.fromkeys(node.absorbed, node)  # what another absorbed is that other
    for node in nodes:
        _set_stage(node, by_variable)
    for node in reversed(nodes):
        _run_late(node, users, outputs, by_variable)
    for node in reversed(nodes):
        _leave_reshape(node, users, by_variable)
    return _groups(nodes, by_variable, parameters)


def _before(node, by_variable):
    variables = node.operands if node.kind else needed(node.call)
    return [by_variable[v] for v in variables if v in by_variable]


def _set_stage(node, by_variable):
    before = _before(node, by_variable)
    if node.kind:
        stage = max((b.stage + (not b.kind) for b in before), default=0)
        joins = any(b.kind and b.stage == stage for b in before)
        if node.kind in HEAVY or joins:
            node.stage = stage
            return
        node.kind, node.reason = None, "nothing before it runs on CLML"
        before = _before(node, by_variable)
    node.stage = max((b.stage for b in before), default=0)


def _run_late(node, users, outputs, by_variable):
    """What only a later subgraph wants runs there: no result then waits in memory."""
    after = _after(node, users, by_variable)
    if node.kind and after and node.variable not in outputs and all(a.kind for a in after):
        node.stage = min(a.stage for a in after)


def _leave_reshape(node, users, by_variable):
    """A reshape costs nothing outside: those at a subgraph's edge go there."""
    if node.kind == "reshape":
        around = [_before(node, by_variable), _after(node, users, by_variable)]
        inside = [any(n.kind and n.stage == node.stage for n in side) for side in around]
        if not all(inside):
            node.kind, node.reason = None, "moves nothing"
            node.stage = max((b.stage for b in around[0]), default=0)


def _after(node, users, by_variable):
    """The nodes that use a node's result."""
    return [by_variable[user.variable] for user in users[node.variable]]


def _groups(nodes, by_variable, parameters):
    """Connected nodes of one stage: by results, or by reading the same."""
    parent = {}

    def root(item):
        while parent.setdefault(item, item) is not item:
            item = parent[item]
        return item

    chosen = [node for node in nodes if node.kind]
    for node in chosen:
        for variable in node.operands:
            before = by_variable.get(variable)
            near = before is not None and before.kind and before.stage == node.stage
            if near:
                parent[root(before)] = root(node)
            elif variable not in parameters:
                parent[root((node.stage, variable))] = root(node)
    groups = defaultdict(list)
    for node in chosen:
        groups[root(node)].append(node)
    for members in groups.values():
        for node in members:
            node.group = members
    return sorted(groups.values(), key=lambda members: members[0].stage)


def operations(node):
    """Additions and multiplications of a convolution or product; 0 for the rest."""
    if not isinstance(node.product, relax.Call) or not isinstance(node.product.op, Op):
        return 0
    if node.product.op.name == "relax.nn.conv2d":
        summed = math.prod(shape_of(node.product.args[1])[1:])
    elif node.product.op.name == "relax.matmul":
        summed = shape_of(node.product.args[0])[-1]
    else:
        return 0
    return 2 * math.prod(shape_of(node.variable)) * summed


def shape_of(expression):
    """Extents of a tensor."""
    return [int(extent) for extent in expression.ty.shape.values]


def dtype_of(expression):
    """Numpy's name of a tensor's dtype."""
    dtype = expression.ty.dtype
    return str(getattr(dtype, "dtype", dtype))


def _say(shape):
    return "x".join(map(str, shape)) or "a number"
