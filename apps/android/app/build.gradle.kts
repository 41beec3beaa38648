import javax.inject.Inject
import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

// The model of debug builds, such as `llama-export --target onnx --model demo` makes: -PdemoBundle=FOLDER.
val demoBundle = rootProject.file(providers.gradleProperty("demoBundle").getOrElse("../../demo/onnx"))
val copyDemo = tasks.register<CopyDemo>("copyDemo") {
    bundle.from(demoBundle)
    expected = demoBundle.path
}

android {
    namespace = "org.llamaexport.app"
    compileSdk = libs.versions.compileSdk.get().toInt()
    defaultConfig {
        applicationId = "org.llamaexport.app"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.compileSdk.get().toInt()
        versionCode = 1
        versionName = "0.1.0"
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    buildFeatures {
        buildConfig = true
    }
    packaging {
        // Mapped from the APK; unpacked they would be there twice.
        jniLibs.useLegacyPackaging = false
        // More than one library may bring it.
        jniLibs.pickFirsts += "**/libc++_shared.so"
    }
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_11
    }
}

androidComponents {
    // They run in Robolectric: tools/apps/check_android.py.
    beforeVariants { it.hostTests.values.forEach { tests -> tests.enable = false } }
    onVariants(selector().withBuildType("debug")) {
        it.sources.assets?.addGeneratedSourceDirectory(copyDemo, CopyDemo::assets)
    }
}

dependencies {
    implementation(project(":core"))
    implementation(project(":engine-onnx"))
    implementation(project(":engine-executorch"))
}

/** Copies a bundle into the folder `demo` of the APK's assets. */
abstract class CopyDemo : DefaultTask() {
    @get:InputFiles
    @get:PathSensitive(PathSensitivity.RELATIVE)
    abstract val bundle: ConfigurableFileCollection

    @get:Input
    abstract val expected: Property<String>

    @get:OutputDirectory
    abstract val assets: DirectoryProperty

    @get:Inject
    abstract val files: FileSystemOperations

    @TaskAction
    fun copy() {
        if (bundle.asFileTree.isEmpty) logger.warn("${expected.get()} is missing: the app will begin without a model")
        files.sync {
            from(bundle)
            into(assets.dir("demo"))
        }
    }
}
