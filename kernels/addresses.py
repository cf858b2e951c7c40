"""Numba intrinsics for raw memory: a launch's table holds addresses, as it would on a GPU."""

from __future__ import annotations

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def bytes_at(typing_context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer to uint8."""
    return types.CPointer(types.uint8)(types.int64), _as_pointer


@intrinsic
def words_at(typing_context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer to int16."""
    return types.CPointer(types.int16)(types.int64), _as_pointer


def _as_pointer(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
    return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))


@intrinsic
def prefetch(typing_context, address):  # type: ignore[no-untyped-def]
    """Ask for the cache line at an address; harmless whatever the address."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        i32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32])
        function = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), kind)
        read, keep, data = (ir.Constant(i32, value) for value in (0, 3, 1))
        builder.call(function, [builder.inttoptr(arguments[0], pointer), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def borrow(typing_context, array):  # type: ignore[no-untyped-def]
    """The same array without its reference count: counting costs an atomic operation per slice."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        proxy = cgutils.create_struct_proxy(signature.return_type)(context, builder, arguments[0])
        proxy.meminfo = cgutils.get_null_value(proxy.meminfo.type)
        return proxy._getvalue()

    return array(array), generate
