"""Groups of operators -> CLML graphs in the JSON that TVM's CLML runtime reads.

Runs in TVM's own Python. A graph's weights are constants under the names of the program's
parameters; its inputs are what the rest of the program hands over, in order.

Every tensor of a graph is made once, in the form that its first operator wants: what is to be a
product's second factor gets there by a reshape of its own (`clml_runtime.cc`, CreateDenseLayer and
MakeCLMLTensorFromJSONEntry, TVM 0.27).
"""

import json

from clml_partition import dtype_of, shape_of

NAMES = {"conv2d": "nn.conv2d", "dense": "nn.dense", "softmax": "nn.softmax"}
"""CLML's runtime goes by these; other kinds are called what they are."""


class Graph:
    """One CLML graph. `inputs` and `outputs` are variables of the program, `constants` names."""

    def __init__(self, symbol, group, users, outputs, names):
        self.symbol = symbol
        self.group = group
        self._names = names
        mine = {variable for node in group for variable in (node.variable, *node.absorbed)}
        self.outputs = [
            node.variable
            for node in group
            if node.variable in outputs or any(u.variable not in mine for u in users[node.variable])
        ]
        self.inputs, self.constants = [], []
        self._nodes, self._places, self._made_for_product = [], {}, set()
        for node in group:
            for variable in node.operands:
                if variable not in mine and variable not in names:
                    self._input(variable)
        for node in group:
            self._kernel(node)

    @property
    def json(self):
        """What the runtime reads."""
        rows = list(range(len(self._nodes) + 1))  # every node has one output
        bare = [i for i, node in enumerate(self._nodes) if node["op"] != "kernel"]
        heads = [[self._places[variable], 0, 0] for variable in self.outputs]
        graph = {"nodes": self._nodes, "arg_nodes": bare, "heads": heads, "node_row_ptr": rows}
        return json.dumps(graph, separators=(",", ":"))

    def _input(self, variable):
        if variable not in self._places:
            name = f"{self.symbol}_input_{len(self.inputs)}"
            self.inputs.append(variable)
            self._places[variable] = self._add("input", name, variable, shape_of(variable))

    def _constant(self, variable, shape):
        if variable not in self._places:
            name = self._names[variable]
            self.constants.append(name)
            self._places[variable] = self._add("const", name, variable, shape)
        return self._places[variable]

    def _kernel(self, node):
        places = []
        for index, variable in enumerate(node.operands):
            if variable in self._names:
                shape = shape_of(variable)
                if index == 2:  # a bias stands at the channels' place
                    shape = [1, *shape] + [1, 1] * (node.kind == "conv2d")
                places.append(self._constant(variable, shape))
            elif node.kind == "dense" and index == 1:
                places.append(self._second_factor(variable))
            else:
                places.append(self._places[variable])
        name = NAMES.get(node.kind, node.kind)
        attributes = {**node.attributes, "num_inputs": len(places), "num_outputs": 1}
        place = self._add("kernel", name, node.variable, shape_of(node.variable), attributes)
        self._nodes[place]["inputs"] = [[p, 0, 0] for p in places]
        self._places[node.variable] = place

    def _second_factor(self, variable):
        """A tensor that nothing else has given its form."""
        place = self._places[variable]
        free = self._nodes[place]["op"] == "input" or self._nodes[place]["name"] == "reshape"
        used = any([place, 0, 0] in node.get("inputs", []) for node in self._nodes)
        if free and not used and variable not in self.outputs:
            return place
        copied = self._add(
            "kernel", "reshape", variable, shape_of(variable), {"num_inputs": 1, "num_outputs": 1}
        )
        self._nodes[copied]["inputs"] = [[place, 0, 0]]
        return copied

    def _add(self, op, name, variable, shape, attributes=None):
        attributes = {"shape": [shape], "dtype": [dtype_of(variable)], **(attributes or {})}
        self._nodes.append({"op": op, "name": name, "attrs": attributes})
        return len(self._nodes) - 1


def structure(graph_json):
    """A graph without the names of its tensors: what it computes, whatever the weights."""
    graph = json.loads(graph_json)
    for node in graph["nodes"]:
        if node["op"] != "kernel":
            node["name"] = ""
    return json.dumps(graph, separators=(",", ":"))
