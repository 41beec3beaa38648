import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.library)
    alias(libs.plugins.kotlin.android)
}

// Its tests run on a JVM, with the desktop's onnxruntime: tools/apps/check_android.py.
android {
    namespace = "org.llamaexport.engine.onnx"
    compileSdk = libs.versions.compileSdk.get().toInt()
    defaultConfig {
        minSdk = libs.versions.minSdk.get().toInt()
        consumerProguardFiles("consumer-rules.pro")
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_11
    }
}

androidComponents {
    beforeVariants { it.hostTests.values.forEach { tests -> tests.enable = false } }
}

dependencies {
    api(project(":core"))
    api(libs.onnxruntime.android)
}
