package org.pytorch.executorch;

/** A double of the runtime's class, for tensors and whole numbers. */
public final class EValue {
    private final Object value;

    private EValue(Object value) {
        this.value = value;
    }

    public static EValue from(Tensor value) {
        return new EValue(value);
    }

    public static EValue from(long value) {
        return new EValue(value);
    }

    public boolean isTensor() {
        return value instanceof Tensor;
    }

    public boolean isInt() {
        return value instanceof Long;
    }

    public Tensor toTensor() {
        if (!isTensor()) {
            throw new IllegalStateException("Expected EValue type Tensor");
        }
        return (Tensor) value;
    }

    public long toInt() {
        if (!isInt()) {
            throw new IllegalStateException("Expected EValue type Int");
        }
        return (Long) value;
    }
}
