package org.pytorch.executorch;

/** A double of the runtime's class; an invalid argument has a class of its own there. */
public class ExecutorchRuntimeException extends RuntimeException {
    private final int errorCode;

    public ExecutorchRuntimeException(int errorCode, String details) {
        super("[ExecuTorch Error 0x" + Integer.toHexString(errorCode) + "] " + details);
        this.errorCode = errorCode;
    }

    public int getErrorCode() {
        return errorCode;
    }

    public static class ExecutorchInvalidArgumentException extends IllegalArgumentException {
        public ExecutorchInvalidArgumentException(String details) {
            super("[ExecuTorch Error 0x12] Invalid argument: " + details);
        }

        public int getErrorCode() {
            return 0x12;
        }
    }
}
