package org.pytorch.executorch;

import java.io.Closeable;

/** A double of the runtime's class: a test says what it computes. */
public class Module implements Closeable {
    public static final int LOAD_MODE_FILE = 0;
    public static final int LOAD_MODE_MMAP = 1;

    /** What a program does. */
    public interface Program extends Closeable {
        EValue[] execute(String method, EValue... inputs);

        @Override
        void close();
    }

    /** Where programs come from. */
    public interface Loader {
        Program load(String path, int loadMode, int numThreads);
    }

    /** Set by a test before it loads anything. */
    public static Loader loader;

    private Program program;

    private Module(Program program) {
        this.program = program;
    }

    public static Module load(String path, int loadMode, int numThreads) {
        if (path == null || !new java.io.File(path).isFile()) {
            throw new IllegalArgumentException("Cannot load model path!! " + path);
        }
        return new Module(loader.load(path, loadMode, numThreads));
    }

    public EValue[] forward(EValue... inputs) {
        return execute("forward", inputs);
    }

    public EValue[] execute(String method, EValue... inputs) {
        if (program == null) {
            throw new IllegalStateException("Module has been destroyed");
        }
        return program.execute(method, inputs);
    }

    @Override
    public void close() {
        if (program != null) {
            program.close();
        }
        program = null;
    }
}
