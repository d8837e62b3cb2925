"""Hosts a user's operator: a function of a RecordBatch, or a class with `apply` and, where it has them, `schema`, `open`
and `close`."""

import importlib

SYSTEM = ("_op", "_commit_lsn", "_ordinal", "_commit_ts")
OLDEST_PYARROW = 14
# What ends a stream (Arrow, "IPC Streaming Format").
END = b"\xff\xff\xff\xff\0\0\0\0"


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.ipc
    except Exception as error:
        raise Refused("pyarrow", f"pyarrow was not imported by {sys.executable}: {error}", error) from None
    version = str(getattr(pyarrow, "__version__", "unknown"))
    major = version.split(".")[0]
    if not major.isdigit() or int(major) < OLDEST_PYARROW:
        raise Refused("pyarrow", f"pyarrow {version} of {sys.executable} is older than {OLDEST_PYARROW}")
    return pyarrow


def _decorated(module):
    found = [name for name, value in vars(module).items() if getattr(value, "__etl_stream_operator__", False) is True]
    if len(found) != 1:
        names = ", ".join(sorted(found)) or "nothing"
        raise Refused("module", f'module "{module.__name__}" has {names} under @operator: name the `function` or `class`')
    return found[0]


def _load(settings):
    name = settings["module"]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            where = ", ".join(settings["path"])
            raise Refused("module", f'module "{name}" was not found in {where} or beside the packages of {sys.executable}') from None
        raise Refused("module", f'module "{name}" was not imported: {error}', error) from None
    except BaseException as error:
        # No row has been seen yet, so the words hold no value of one.
        raise Refused("module", f'module "{name}" was not imported: {type(error).__name__}: {error}', error) from None
    wanted = settings.get("class") or settings.get("function") or _decorated(module)
    made = getattr(module, wanted, None)
    if made is None:
        raise Refused("module", f'module "{name}" has no "{wanted}"')
    return wanted, made


class Host:
    """One operator of this process."""

    def __init__(self, settings):
        sys.path[:0] = settings["path"]
        self.pa = _pyarrow()
        name, made = _load(settings)
        self.instance = None
        if isinstance(made, type):
            try:
                self.instance = made()
                if hasattr(self.instance, "open"):
                    self.instance.open()
            except BaseException as error:
                words = f'class "{name}" was not made and opened: {type(error).__name__}: {error}'
                raise Refused("module", words, error) from None
            self.apply = getattr(self.instance, "apply", None)
            self.user_schema = getattr(self.instance, "schema", None)
        else:
            self.apply = made
            self.user_schema = getattr(made, "__etl_stream_schema__", None)
        if not callable(self.apply):
            raise Refused("module", f'"{name}" is neither a function nor a class with a method "apply"')
        self.seen = set()
        self.calls = {"schema": self.on_schema, "batch": self.on_batch}

    def buffer(self, body):
        """A body as Arrow's memory, without a copy."""
        address = getattr(body, "address", None)
        return self.pa.py_buffer(body) if address is None else self.pa.foreign_buffer(address, len(body), body)

    def out_schema(self, schema, number):
        """The schema of what leaves; asked before a schema's first batch, by every process."""
        self.seen.add(number)
        if self.user_schema is None:
            return schema
        out = self.user_schema(schema)
        if not isinstance(out, self.pa.Schema):
            raise Refused("result", f'"schema" gave a {type(out).__name__}, not a pyarrow.Schema')
        return out

    def on_schema(self, header, body):
        with self.pa.ipc.open_stream(self.buffer(body)) as reader:
            schema = reader.schema
        return {}, self.stream(self.out_schema(schema, header["schema"]))

    def stream(self, schema, *batches):
        """The parts of a stream, each in memory of its own size, copied once. What Arrow's dictionaries would need is not here:
        no column that leaves may be one."""
        return [*(part.serialize() for part in (schema, *batches)), END]

    def on_batch(self, header, body):
        pa = self.pa
        with pa.ipc.open_stream(self.buffer(body)) as reader:
            batch = reader.read_next_batch()
        if header["schema"] not in self.seen:
            plain = [batch.schema.get_field_index(name) for name in (*SYSTEM, "_row")]
            fields = [field for at, field in enumerate(batch.schema) if at not in plain]
            self.out_schema(pa.schema(fields, batch.schema.metadata), header["schema"])
        out = self.apply(batch)
        if isinstance(out, pa.Table):
            parts = out.combine_chunks().to_batches()
            out = parts[0] if parts else pa.RecordBatch.from_pylist([], out.schema)
        if not isinstance(out, pa.RecordBatch):
            raise Refused("result", f"it gave a {type(out).__name__}, not a pyarrow.RecordBatch")
        names = out.schema.names
        if any(name in SYSTEM for name in names):
            out = out.select([name for name in names if name not in SYSTEM])
        return {}, self.stream(out.schema, out)

    def close(self):
        if hasattr(self.instance, "close"):
            self.instance.close()


serve(Host)
